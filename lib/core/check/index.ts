/** Compares the system with the desired state. */
import { crowd } from '../../base/crowd'
import { isCnmError } from '../../base/errors'
import type { Network } from '../../network'
import type { Sandbox } from '../../sandbox'
import type { Context } from '../context'
import type { Difference } from '../difference'
import type { World } from '../world'
import { type Facts, factsOf } from './facts'
import { groups } from './groups'
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
  const networks = world.networks().filter(network => checkNetwork(context, network, host).length)
  const sandboxes = new Set<Sandbox>()
  await crowd(world.sandboxes(), WIDTH, async sandbox => {
    if ((await surveySandbox(context, sandbox, host)).length) sandboxes.add(sandbox)
  })
  const found: Difference[] = []
  for (const group of groups(networks)) found.push(...(await confirmNetworks(context, world, group)))
  found.push(...(await checkSandboxes(context, world, [...sandboxes])))
  for (const problem of await context.firewall.check())
    if (problem.kind === 'missing')
      found.push({ kind: 'firewall', problem: 'missing', message: problem.message, fix: { by: 'firewall' } })
    else if (problem.kind === 'forwarding-off')
      found.push({ kind: 'sysctl', problem: 'wrong', message: problem.message, fix: { by: 'firewall' } })
  found.push(...((await context.spanning?.check()) ?? []))
  found.push(...(await findStrays(context, world, host)))
  return found
}

/** Only what concerns these sandboxes, while nobody is at work on them. */
export async function checkSandboxes(
  context: Context,
  world: World,
  sandboxes: readonly Sandbox[],
): Promise<Difference[]> {
  const found: Difference[] = []
  for (const group of groups(sandboxes)) found.push(...(await confirmSandboxes(context, world, group)))
  return found
}

const confirmNetworks = (context: Context, world: World, suspects: Network[]): Promise<Difference[]> =>
  context.locks.runAll(
    suspects.map(({ id }) => `network ${id}`),
    async () => {
      const [host, live] = [await factsOf(context.host), new Set(world.networks())]
      return suspects.filter(each => live.has(each)).flatMap(each => checkNetwork(context, each, host))
    },
  )

const confirmSandboxes = (context: Context, world: World, suspects: Sandbox[]): Promise<Difference[]> =>
  context.locks.runAll(
    suspects.map(({ id }) => `sandbox ${id}`),
    async () => {
      const [host, live] = [await factsOf(context.host), new Set(world.sandboxes())]
      const found = new Map<Sandbox, Difference[]>()
      await crowd(suspects, WIDTH, async each => {
        if (live.has(each)) found.set(each, await checkSandbox(context, each, host))
      })
      return suspects.flatMap(each => found.get(each) ?? [])
    },
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
