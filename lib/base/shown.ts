import { inspect, type InspectOptions } from 'node:util'

/** What `console.log` calls. */
export const SHOWN: typeof inspect.custom = inspect.custom

/** An object on one line: its kind, and what tells it from others; what is undefined is left out. */
export function shown(kind: string, facts: Record<string, unknown>, options: InspectOptions): string {
  const told = Object.fromEntries(Object.entries(facts).filter(([, value]) => value !== undefined))
  return `${kind} ${inspect(told, { ...options, breakLength: Number.POSITIVE_INFINITY })}`
}
