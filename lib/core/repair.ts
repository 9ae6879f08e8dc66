/** Puts right what `check` finds. */
import type { Network } from '../network'
import type { Sandbox } from '../sandbox'
import { portFlags } from './apart'
import { check } from './check'
import { findStrays } from './check/strays'
import type { World } from './world'
import { marked } from './mark'
import { applyLeniently, applyTolerantly, carryOut, type Context } from './context'
import type { Difference } from './difference'
import { tellProblem } from './problem'

/**
 * One thing that cannot be mended does not keep the others from it: each failure is told as a `problem`, and the first is
 * thrown at the end, unless `lenient`.
 */
export async function repair(
  context: Context,
  world: World,
  { lenient = false }: { lenient?: boolean } = {},
): Promise<Difference[]> {
  const found = await check(context, world)
  const failures: unknown[] = []
  const mend = async ({ message }: { message: string }, body: () => unknown): Promise<void> => {
    try {
      await body()
    } catch (error) {
      failures.push(error)
      tellProblem(context, `cannot mend: ${message}`, error)
    }
  }
  const networks = new Map(world.networks().map(network => [network.id, network]))
  const sandboxes = new Map(world.sandboxes().map(sandbox => [sandbox.id, sandbox]))
  // Networks first: endpoints hang on them. Then namespaces, interfaces, what is on them, and the rest.
  for (const difference of found)
    if (difference.fix.by === 'rebuild-network')
      await mend(difference, () =>
        rebuild(context, networks.get(difference.networkId as string) as Network, world),
      )
  for (const difference of found)
    if (difference.fix.by === 'delete-sandbox')
      await mend(difference, () => sandboxes.get(difference.sandboxId as string)?.delete({ force: true }))
  const reattached = new Set<string>()
  for (const difference of found) {
    const { fix, sandboxId, endpointId } = difference
    if (fix.by !== 'reattach' || reattached.has(endpointId as string)) continue
    reattached.add(endpointId as string)
    const sandbox = sandboxes.get(sandboxId as string)
    const endpoint = sandbox?.endpoints().find(({ id }) => id === endpointId)
    if (sandbox && endpoint) await mend(difference, () => sandbox.reattach(endpoint))
  }
  for (const difference of found)
    if (!reattached.has(difference.endpointId ?? ''))
      await mend(difference, () => change(context, sandboxes, difference))
  const filed = new Map(
    found
      .filter(({ fix }) => fix.by === 'files' || fix.by === 'resolver')
      .map(each => [each.sandboxId, each]),
  )
  for (const difference of filed.values())
    await mend(difference, () => sandboxes.get(difference.sandboxId as string)?.repairNames())
  for (const difference of found)
    if (difference.fix.by === 'services')
      await mend(difference, () => sandboxes.get(difference.sandboxId as string)?.repairServices())
  // A bridge that was made anew has none of the sysctls that the firewall had set on the old one.
  const wall = found.find(({ fix }) => fix.by === 'firewall' || fix.by === 'rebuild-network')
  if (wall) await mend(wall, () => context.firewall.repair())
  const plain = found.find(({ fix }) => fix.by === 'encryption')
  if (plain) await mend(plain, () => context.spanning?.repair())
  await mend({ message: 'what belongs to nobody' }, () => sweepStrays(context, world))
  // A link that went down, or lost an address, has lost its routes as well: look once more for those.
  if (found.some(({ fix, kind }) => fix.by === 'changes' && (kind === 'link' || kind === 'address')))
    for (const difference of await check(context, world))
      if (difference.kind === 'route') await mend(difference, () => change(context, sandboxes, difference))
  if (failures.length && !lenient) throw failures[0]
  return found
}

/** Carries out the fix of one difference, with nobody at work on what it concerns. */
async function change(
  context: Context,
  sandboxes: ReadonlyMap<string, Sandbox>,
  difference: Difference,
): Promise<void> {
  const { fix, sandboxId, networkId, kind } = difference
  if ((fix.by !== 'changes' && fix.by !== 'sysctls') || kind === 'stray') return
  const keys = sandboxId ? [`sandbox ${sandboxId}`] : networkId ? [`network ${networkId}`] : []
  await context.locks.runAll(keys, async () => {
    const stack = fix.where === 'host' ? context.host : sandboxes.get(sandboxId ?? '')?.stack
    if (!stack) return
    if (fix.by === 'changes') await applyTolerantly(stack, fix.changes)
    if (fix.sysctls) stack.setSysctls(fix.sysctls)
  })
}

/** Links that are deleted together: the kernel waits once for all of them (RCU), and others are not held up for long. */
const TOGETHER = 32

/** Removes links and namespaces that carry our mark and belong to nobody. */
export async function sweepStrays(context: Context, world: World): Promise<void> {
  const fixes = (await findStrays(context, world)).map(({ fix }) => fix)
  const changes = fixes.flatMap(fix => (fix.by === 'changes' ? fix.changes : []))
  for (let at = 0; at < changes.length; at += TOGETHER) {
    const some = changes.slice(at, at + TOGETHER)
    await context.host.apply(some).catch(() => applyLeniently(context.host, some))
  }
  for (const fix of fixes) if (fix.by === 'unbind') await context.kernel.remove(fix.path)
}

/** The bridge is gone: made anew as it was, and every endpoint's link hung on it again. */
async function rebuild(context: Context, network: Network, world: World): Promise<void> {
  const { host, locks, store } = context
  await locks.runAll([`network ${network.id}`, `networks of ${network.driver}`], async () => {
    const spans = network.spanning !== undefined
    if (!world.networks().includes(network)) return
    if (network.link && (await host.link(network.link))) return
    if (spans) await context.spanning?.rebuild(network)
    else {
      const { plan, state } = await network.implementation.createNetwork(
        network.forDriver.spec,
        host,
        world.siblings(network),
      )
      await carryOut(host, marked(context.name, network, plan), 'rebuild', { push() {} })
      const { record } = network
      // The name stays: a driver may have chosen it at random.
      record.state = { ...record.state, ...state, link: record.state.link ?? state.link }
      await store.write({ put: [{ kind: 'network', id: network.id, version: 1, value: record }] })
    }
    const there = new Set((await host.links()).map(({ name }) => name))
    for (const endpoint of network.endpoints()) {
      const { attachment } = endpoint.record.join ?? {}
      const port = attachment?.interface?.source
      if (attachment && port && network.link && there.has(port))
        await host.apply([
          { op: 'setLink', link: port, master: network.link, up: true },
          ...portFlags(context, endpoint),
        ])
    }
  })
}
