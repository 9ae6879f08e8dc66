import type { Driver, DriverNetwork } from '../driver/contract'
import type { Stack } from '../kernel/kernel'
import type { Network } from '../network'
import type { Sandbox } from '../sandbox'
import type { NetworkRecord, SandboxRecord } from './records'

/** The nouns that there are. */
export interface World {
  networks(): Network[]
  sandboxes(): Sandbox[]
  sandbox(id: string): Sandbox | undefined
  siblings(network: Network): DriverNetwork[]
  addNetwork(record: NetworkRecord, driver: Driver): Network
  addSandbox(record: SandboxRecord, stack: Stack | undefined): Sandbox
}
