/** Compares the system with the desired state. */
import { crowd } from '../../base/crowd'
import { isCnmError } from '../../base/errors'
import type { Network } from '../../network'
import type { Sandbox } from '../../sandbox'
import type { Context } from '../context'
import type { Difference } from '../difference'
import type { World } from '../world'
import { type Facts, factsOf } from './facts'
import { checkNetwork } from './networks'
import { checkSandbox } from './sandboxes'
import { findStrays } from './strays'

/** Sandboxes that are looked at together: enough to keep the threads busy that speak to the kernel. */
const WIDTH = 16

/**
 * Looks at everything without stopping anybody. What seems to differ is looked at once more while nobody is at work on
 * it: what was merely under way is no difference.
 */
export async function check(context: Context, world: World): Promise<Difference[]> {
  const host = await factsOf(context.host)
  const suspects = new Set<Network | Sandbox>()
  for (const network of world.networks())
    if (checkNetwork(context, network, host).length) suspects.add(network)
  await crowd(world.sandboxes(), WIDTH, async sandbox => {
    if ((await surveySandbox(context, sandbox, host)).length) suspects.add(sandbox)
  })
  const found: Difference[] = []
  for (const suspect of suspects)
    found.push(
      ...(await ('containerId' in suspect
        ? confirmSandbox(context, world, suspect)
        : confirmNetwork(context, world, suspect))),
    )
  for (const problem of await context.firewall.check())
    if (problem.kind === 'missing')
      found.push({ kind: 'firewall', problem: 'missing', message: problem.message, fix: { by: 'firewall' } })
    else if (problem.kind === 'forwarding-off')
      found.push({ kind: 'sysctl', problem: 'wrong', message: problem.message, fix: { by: 'firewall' } })
  found.push(...((await context.spanning?.check()) ?? []))
  found.push(...(await findStrays(context, world, host)))
  return found
}

const confirmNetwork = (context: Context, world: World, network: Network): Promise<Difference[]> =>
  context.locks.run(`network ${network.id}`, async () =>
    world.networks().includes(network) ? checkNetwork(context, network, await factsOf(context.host)) : [],
  )

const confirmSandbox = (context: Context, world: World, sandbox: Sandbox): Promise<Difference[]> =>
  context.locks.run(`sandbox ${sandbox.id}`, async () =>
    world.sandboxes().includes(sandbox) ? checkSandbox(context, sandbox, await factsOf(context.host)) : [],
  )

/** {@link checkSandbox} of one that may be deleted or moved meanwhile: then there is reason for a second look. */
async function surveySandbox(context: Context, sandbox: Sandbox, host: Facts): Promise<unknown[]> {
  try {
    return await checkSandbox(context, sandbox, host)
  } catch (error) {
    if (isCnmError(error, 'ERR_CLOSED')) return [error]
    throw error
  }
}
