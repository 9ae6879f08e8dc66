/** libcnm/testing: a model of Linux and what is needed to test drivers, allocators and programs against it. */
export {
  anonymous,
  type FaultSweepOptions,
  type FaultSweepResult,
  faultSweep,
  type Scene,
  type SweptOperation,
} from './fault-sweep'
export {
  type Hardware,
  type KernelCall,
  MockKernel,
  type MockKernelOptions,
  type NetnsView,
  type RulesetModel,
} from './mock-kernel'
export { clusterSuite, type ClusterSuiteOptions } from './cluster-suite'
export { MemoryBackend, MemoryCluster } from '../cluster/memory'
export { kernelSuite, type KernelUnderTest } from './kernel-suite'
export type { ConntrackEntry } from './model/state'
export type { LinkSnapshot, NamespaceSnapshot, Snapshot } from './model/snapshot'
export { driverSuite, type DriverSuiteHost, type DriverSuiteOptions } from './driver-suite'
export { ipamSuite, type IpamSuiteOptions } from './ipam-suite'
export {
  type IpamAnswer,
  type IpamArguments,
  type IpamMethod,
  IpamScript,
  MockIpamDriver,
  type MockIpamOptions,
  type RecordedIpamCall,
} from './mock-ipam'
export { MockDriver, type MockDriverCall, type MockDriverMethod, type MockDriverOptions } from './mock-driver'
