/** The chains: Docker's names for the usual controller; and the rules that are there whatever the networks are. Pure. */
import { createHash } from 'node:crypto'
import type { Family } from '../../base/cidr'
import { DEFAULT_NAME } from '../contract'
import type { Item } from '../model'

export const FAMILIES = [4, 6] as const
export type Table = 'raw' | 'mangle' | 'nat' | 'filter'
/** The order in which a packet meets them. */
export const TABLES: Table[] = ['raw', 'mangle', 'nat', 'filter']

const DOCKER = 'DOCKER'
/** Letters. A chain's name has 28 at most (XT_EXTENSION_MAXNAMELEN), and the longest of ours ends in `-INTERNAL`. */
const PREFIX_LENGTH = 19

/**
 * First part of the chains' names: Docker's own for the usual controller, so that tools which know Docker find what they look
 * for; its name for another one, so that several live side by side.
 */
export function chainPrefix(controller: string): string {
  if (controller === DEFAULT_NAME) return DOCKER
  if (controller.length <= PREFIX_LENGTH) return controller
  const digest = createHash('sha256').update(controller).digest('hex').slice(0, 6)
  return `${controller.slice(0, PREFIX_LENGTH - digest.length - 1)}-${digest}`
}

/**
 * Docker's chains let out what comes from their own bridges before anybody behind them is asked where it goes to. So whoever is
 * not the usual controller drops what must not come into its networks in the table that is asked before, and lets out
 * at the very end.
 */
export const beside = (prefix: string): boolean => prefix !== DOCKER

/** Ours in each table; the first is the one that Docker has there too. */
export function ownChains(prefix: string): Record<Table, string[]> {
  return {
    raw: [],
    mangle: beside(prefix) ? [prefix] : [],
    nat: [prefix],
    filter: [
      prefix,
      `${prefix}-FORWARD`,
      `${prefix}-BRIDGE`,
      `${prefix}-CT`,
      `${prefix}-INTERNAL`,
      ...(beside(prefix) ? [`${prefix}-OUT`] : []),
    ],
  }
}

/** The host's own chain, run before ours, never changed. */
export const userChain = (prefix: string): string => `${prefix}-USER`

/** An item's value says at which end of its chain the rule goes. */
export const head = (rule: string) => ({ key: rule, value: 'I' })
export const tail = (rule: string) => ({ key: rule, value: 'A' })

/** The rules that are there as long as the controller is. */
export function fixedItems(prefix: string): Item[] {
  return FAMILIES.flatMap(f => [
    // A packet from outside for 127.0.0.0/8 is never translated.
    {
      set: `${f} nat PREROUTING`,
      ...tail(`${f === 4 ? '! -d 127.0.0.0/8 ' : ''}-m addrtype --dst-type LOCAL -j ${prefix}`),
    },
    // There is no leave for packets from ::1 to a bridge, as there is for 127.0.0.1.
    {
      set: `${f} nat OUTPUT`,
      ...tail(`${f === 6 ? '! -d ::1/128 ' : ''}-m addrtype --dst-type LOCAL -j ${prefix}`),
    },
    ...(beside(prefix)
      ? [
          { set: `${f} mangle FORWARD`, ...tail(`-j ${prefix}`) },
          { set: `${f} filter FORWARD`, ...tail(`-j ${prefix}-OUT`) },
        ]
      : []),
    { set: `${f} filter FORWARD`, ...head(`-j ${prefix}-FORWARD`) },
    { set: `${f} filter FORWARD`, ...head(`-j ${userChain(prefix)}`) },
    { set: `${f} filter ${prefix}-FORWARD`, ...tail(`-j ${prefix}-CT`) },
    { set: `${f} filter ${prefix}-FORWARD`, ...tail(`-j ${prefix}-INTERNAL`) },
    { set: `${f} filter ${prefix}-FORWARD`, ...tail(`-j ${prefix}-BRIDGE`) },
  ])
}

/** Where an item's rule is. */
export function place(item: Item): { family: Family; table: Table; chain: string } {
  const [family, table, chain] = item.set.split(' ')
  return { family: family === '6' ? 6 : 4, table: table as Table, chain: chain ?? '' }
}
