import { addressing } from './addressing'
import { events } from './events'
import { ipsec } from './ipsec'
import { ipv6 } from './ipv6'
import { type KernelUnderTest, Lab } from './lab'
import { links } from './links'
import { losses } from './losses'
import { namespaces } from './namespaces'
import { refused } from './refused'
import { sockets } from './sockets'
import { sysctls } from './sysctls'
import { transactions } from './transactions'

export type { KernelUnderTest } from './lab'

/**
 * The contract of the kernel seam, for any implementation: what is made reads back, what is refused is refused with the
 * same errno and code, and what happens is told. Runs inside the caller's `describe`. {@link MockKernel} is held to the
 * real kernel by running it on both.
 */
export function kernelSuite(makeKernel: () => Promise<KernelUnderTest>): void {
  const lab = new Lab()
  beforeEach(async () => lab.begin(await makeKernel()))
  afterEach(() => lab.end())

  for (const part of [
    namespaces,
    links,
    addressing,
    ipv6,
    ipsec,
    refused,
    transactions,
    sysctls,
    sockets,
    events,
    losses,
  ])
    part(lab)
}
