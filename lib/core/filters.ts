import { z } from 'zod'
import type { Network } from '../network'

const values = () => z.union([z.string().transform(one => [one]), z.array(z.string())]).optional()

/**
 * Which networks: values of one key are alternatives (labels must all match), keys must all match. `name` and `id` match
 * exactly, as a part, or as a regular expression (as Docker's do).
 */
export const NetworkFilters = z
  .strictObject({
    driver: values(),
    id: values(),
    name: values(),
    label: values(),
    scope: values(),
    type: values().refine(
      list => !list || list.every(one => one === 'builtin' || one === 'custom'),
      'must be builtin or custom',
    ),
    dangling: z.boolean().optional(),
  })
  .prefault({})
export type NetworkFilters = z.output<typeof NetworkFilters>

export const PruneFilters = z
  .strictObject({
    /** Networks made before this moment. */
    until: z.date().optional(),
    label: values(),
    notLabel: values(),
  })
  .prefault({})
export type PruneFilters = z.output<typeof PruneFilters>

export function matches(network: Network, filters: NetworkFilters): boolean {
  const { driver, id, name, label, scope, type, dangling } = filters
  const kind = network.predefined ? 'builtin' : 'custom'
  const inUse = network.endpoints().length > 0
  return (
    oneOf(driver, value => value === network.driver) &&
    oneOf(scope, value => value === network.scope) &&
    oneOf(type, value => value === kind) &&
    oneOf(id, value => resembles(value, network.id)) &&
    oneOf(name, value => resembles(value, network.name)) &&
    hasLabels(network, label) &&
    (dangling === undefined || dangling === (!inUse && !network.predefined))
  )
}

export function prunable(network: Network, { until, label, notLabel }: PruneFilters): boolean {
  if (network.predefined || network.configOnly || network.ingress || network.endpoints().length > 0)
    return false
  if (until && network.created > until) return false
  return hasLabels(network, label) && !(notLabel ?? []).some(one => hasLabels(network, [one]))
}

const oneOf = (list: string[] | undefined, test: (value: string) => boolean): boolean =>
  !list?.length || list.some(test)

const hasLabels = ({ labels }: Network, wanted: string[] | undefined): boolean =>
  (wanted ?? []).every(text => {
    const at = text.indexOf('=')
    return at < 0 ? Object.hasOwn(labels, text) : labels[text.slice(0, at)] === text.slice(at + 1)
  })

function resembles(pattern: string, text: string): boolean {
  if (text.includes(pattern)) return true
  // A pattern from outside: short, and only where it is a pattern at all.
  if (pattern.length > 128 || !/[\\^$.*+?()[\]{}|]/.test(pattern)) return false
  try {
    return new RegExp(pattern).test(text)
  } catch {
    return false
  }
}
