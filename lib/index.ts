/** libcnm: the Container Network Model as a library. */
export { Controller } from './controller'
export type { ClusterView } from './controller/cluster-view'
export { Network } from './network'
export type { NetworkInspect } from './core/network/inspect'
export { Endpoint, type EndpointInspect } from './endpoint'
export { Sandbox } from './sandbox'
export type { SandboxInspect } from './core/sandbox/inspect'
export { Service, type ServiceInspect } from './service'
export type { ServicePort, ServiceTask } from './services/contract'
export type {
  ControllerInput,
  EndpointInput,
  JoinInput,
  NetworkInput,
  SandboxInput,
  ServiceInput,
} from './options'
export { CnmError, ERRORS, isCnmError, type ErrorCode, type ErrorKind } from './base/errors'
export type { Logger } from './base/log'
export type { CnmEvent, CnmEventOf, CnmEventType } from './core/events'
export type { Difference } from './core/difference'
export type * from './driver/contract'
export { flag, integer, list } from './driver/options'
export type * from './ipam/contract'
export { DefaultIpamDriver, type DefaultIpamOptions } from './ipam/default'
export type { Kernel, Stack, Change, Link, LinkStatistics } from './kernel/kernel'
export { LinuxKernel } from './kernel/linux'
export type { PortBinding, PublishedPort } from './ports/contract'
export { parsePort, formatPort } from './ports/spec'
export { bridge } from '../drivers/bridge'
export { host } from '../drivers/host'
export { nullDriver } from '../drivers/null'
export { serveDriver, type ServeDriverOptions } from '../drivers/remote/serve-driver'
export { serveIpamDriver } from '../drivers/ipam/remote/serve'
export type { PluginServer, PluginServerOptions } from '../drivers/remote/server'
export { macvlan } from '../drivers/macvlan'
export { ipvlan } from '../drivers/ipvlan'
export { overlay, type OverlaySettings } from '../drivers/overlay'
export type { Backend } from './cluster/contract'
export { drawTopology } from './cli/graph/draw'
