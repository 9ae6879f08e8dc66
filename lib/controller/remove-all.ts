import type { Locks } from '../base/locks'
import type { Network } from '../network'
import type { Sandbox } from '../sandbox'
import type { Service } from '../service'

/** What there is to remove. */
interface Everything {
  networks(): Network[]
  sandboxes(): Sandbox[]
  services(): Service[]
}

/** Of sandboxes that are to go: those that share a namespace before its owners, who are in use until then. */
export const sharersFirst = (a: Sandbox, b: Sandbox): number =>
  Number(b.mode.startsWith('container:')) - Number(a.mode.startsWith('container:'))

/** Everything that there is, users before what they use. Resolves to what went wrong. */
export async function removeAll(all: Everything, locks: Locks): Promise<unknown[]> {
  const failures: unknown[] = []
  const attempt = (work: Promise<unknown>) => work.catch((error: unknown) => failures.push(error))
  for (const service of all.services()) await attempt(service.delete())
  for (const sandbox of all.sandboxes().sort(sharersFirst)) await attempt(sandbox.delete({ force: true }))
  // Configurations last: networks are made from them.
  const networks = all.networks().sort((a, b) => Number(a.configOnly) - Number(b.configOnly))
  for (const network of networks) {
    for (const endpoint of network.endpoints()) await attempt(endpoint.delete({ force: true }))
    await attempt(
      locks.runAll([`network ${network.id}`, `networks of ${network.driver}`], () => network.remove()),
    )
  }
  return failures
}
