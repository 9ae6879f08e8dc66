import type { Address, Link, Route, RouteSpec, Shaper, Stack } from '../../kernel/kernel'

/** What one survey of a namespace says. */
export interface Facts {
  links: Map<string, Link>
  /** By index of the link. */
  addresses: Map<number, Address[]>
  routes: Route[]
  /** Those that have a link, by its index. */
  routesBy: Map<number, Route[]>
  /** Asked for once, and only where there are rates to be kept. */
  shapers(): Promise<Shaper[]>
}

export async function factsOf(stack: Stack): Promise<Facts> {
  const { links, addresses, routes } = await stack.survey()
  let shapers: Promise<Shaper[]> | undefined
  return {
    shapers: () => (shapers ??= stack.shapers()),
    links: new Map(links.map(link => [link.name, link])),
    addresses: byLink(addresses),
    routes,
    routesBy: byLink(routes),
  }
}

function byLink<T extends { link?: number }>(all: T[]): Map<number, T[]> {
  const found = new Map<number, T[]>()
  for (const each of all) {
    if (each.link === undefined) continue
    const list = found.get(each.link)
    if (list) list.push(each)
    else found.set(each.link, [each])
  }
  return found
}

/** The addresses of a link, with their lengths. */
export const addressesOn = ({ addresses }: Facts, link: number | undefined): Set<string> =>
  new Set((link === undefined ? [] : (addresses.get(link) ?? [])).map(({ address }) => address))

export const isRoute = (route: Route, wanted: RouteSpec, link: number): boolean =>
  route.destination === wanted.destination &&
  route.type === (wanted.type ?? 'unicast') &&
  route.table === (wanted.table ?? 254) &&
  route.gateway === wanted.gateway &&
  (route.type !== 'unicast' || route.link === link)
