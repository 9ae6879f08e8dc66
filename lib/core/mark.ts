import type { Plan } from '../driver/contract'

/** The mark that a controller leaves on its links (their alias): whose they are, an endpoint's or a network's. */
export const markOf = (controller: string, id: string): string => `${controller}:${id.slice(0, 12)}`

/** A plan that makes a network's bridge also marks it; one that adopts a bridge of somebody else leaves it as it is. */
export function marked(
  controller: string,
  { id, link }: { id: string; link?: string },
  plan: Plan | undefined,
): Plan | undefined {
  const makes = plan?.changes?.some(
    change => change.op === 'addLink' && change.link.kind === 'bridge' && change.link.name === link,
  )
  if (!plan || !link || !makes) return plan
  return {
    ...plan,
    changes: [...(plan.changes ?? []), { op: 'setLink', link, alias: markOf(controller, id) }],
  }
}

export const bearsMark = (controller: string, alias: string | undefined): boolean =>
  alias?.startsWith(`${controller}:`) ?? false
