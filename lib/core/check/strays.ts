/** What bears the controller's mark and belongs to nobody. */
import { join } from 'node:path'
import type { Context } from '../context'
import type { Difference } from '../difference'
import { bearsMark } from '../mark'
import type { World } from '../world'
import { type Facts, factsOf } from './facts'

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
  const found: Difference[] = []
  for (const suspect of suspects) {
    const keys = locksOf(suspect, world)
    const again = await context.locks.runAll(keys, async () =>
      (await strays(context, world, await factsOf(context.host))).some(
        ({ message }) => message === suspect.message,
      ),
    )
    if (again) found.push(suspect)
  }
  return found
}

function locksOf({ message }: Difference, world: World): string[] {
  const ids = new Set(message.match(/\b[0-9a-f]{12}\b/g))
  const bears = ({ id }: { id: string }) => ids.has(id.slice(0, 12))
  return [
    ...world
      .networks()
      .filter(bears)
      .map(({ id }) => `network ${id}`),
    ...world
      .networks()
      .flatMap(network => network.endpoints().filter(bears))
      .flatMap(({ id, record: { join: joined } }) => [
        `endpoint ${id}`,
        ...(joined ? [`sandbox ${joined.sandboxId}`] : []),
      ]),
    ...world
      .sandboxes()
      .filter(bears)
      .map(({ id }) => `sandbox ${id}`),
  ]
}
