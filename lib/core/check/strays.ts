/** What bears the controller's mark and belongs to nobody. */
import { join } from 'node:path'
import type { Context } from '../context'
import type { Difference } from '../difference'
import { bearsMark } from '../mark'
import type { World } from '../world'
import { type Facts, factsOf } from './facts'
import { groups } from './groups'

async function strays(
  { name, host: stack, kernel, reaper, runDir, unborn }: Context,
  world: World,
  host: Facts,
): Promise<Difference[]> {
  const wanted = new Set(
    world
      .networks()
      .flatMap(network =>
        network.endpoints().flatMap(({ record }) => record.join?.attachment?.interface?.source ?? []),
      ),
  )
  for (const network of world.networks()) if (network.link) wanted.add(network.link)
  const found: Difference[] = []
  for (const link of host.links.values())
    if (
      bearsMark(name, link.alias) &&
      !wanted.has(link.name) &&
      !unborn.has(link.name) &&
      !reaper.isDoomed(stack, link.name)
    )
      found.push({
        kind: 'stray',
        problem: 'unwanted',
        message: `${link.name} (${link.alias}) belongs to no network and no endpoint`,
        fix: {
          by: 'changes',
          where: 'host',
          changes: [{ op: 'removeLink', link: link.name, ifExists: true }],
        },
      })
  const paths = await kernel.list(join(runDir, 'netns'))
  const keys = new Set(world.sandboxes().map(({ key }) => key))
  for (const path of paths)
    if (!keys.has(path) && !unborn.has(path))
      found.push({
        kind: 'netns',
        problem: 'unwanted',
        message: `the namespace at ${path} belongs to no sandbox`,
        fix: { by: 'unbind', path },
      })
  return found
}

/** Strays that are still such while nobody is at work on the endpoint, or the sandbox, whose id they bear. */
export async function findStrays(context: Context, world: World, host?: Facts): Promise<Difference[]> {
  const suspects = await strays(context, world, host ?? (await factsOf(context.host)))
  if (suspects.length === 0) return []
  const keys = locksById(world)
  const found: Difference[] = []
  for (const group of groups(suspects)) {
    const owners = group.flatMap(({ message }) => message.match(/\b[0-9a-f]{12}\b/g) ?? [])
    await context.locks.runAll(
      owners.flatMap(id => keys.get(id) ?? []),
      async () => {
        const still = await strays(context, world, await factsOf(context.host))
        const messages = new Set(still.map(({ message }) => message))
        found.push(...group.filter(({ message }) => messages.has(message)))
      },
    )
  }
  return found
}

/** By the first twelve digits of an id, as marks and paths have them: what is locked by who works on its owner. */
function locksById(world: World): Map<string, string[]> {
  const keys = new Map<string, string[]>()
  const add = (id: string, ...more: string[]) => {
    const short = id.slice(0, 12)
    keys.set(short, [...(keys.get(short) ?? []), ...more])
  }
  for (const network of world.networks()) {
    add(network.id, `network ${network.id}`)
    for (const { id, record } of network.endpoints())
      add(id, `endpoint ${id}`, ...(record.join ? [`sandbox ${record.join.sandboxId}`] : []))
  }
  for (const { id } of world.sandboxes()) add(id, `sandbox ${id}`)
  return keys
}
