/** Option schemas shared by drivers. Docker passes every option as a string; so each accepts its text form too. */
import { z } from 'zod'
import { BOOLEAN_WORDS, parseBoolean } from '../base/booleans'
import { CnmError } from '../base/errors'
import { nearest } from '../base/nearest'
import { printable } from '../base/parse'
import { DOCKER_LABELS, isDockers } from './docker-labels'

/** A boolean, or one of the words that Go's ParseBool knows (Docker's labels are read with it). */
export const flag = () =>
  z
    .union([z.boolean(), z.enum(BOOLEAN_WORDS)], {
      error: 'must be true or false',
    })
    .transform(value => (typeof value === 'boolean' ? value : parseBoolean(value) === true))

/** A whole number within bounds, or its decimal text. */
export const integer = (least: number, most: number) =>
  z
    .union(
      [
        z.number(),
        z
          .string()
          .regex(/^-?\d+$/)
          .transform(Number),
      ],
      { error: 'must be a whole number' },
    )
    .pipe(z.number().int().min(least).max(most))

/** A list, or its text with separators. */
export const list = <T extends z.ZodType<unknown, string>>(item: T, separator = ',') =>
  z
    .union([z.array(z.string()), z.string().transform(text => text.split(separator).filter(Boolean))])
    .pipe(z.array(item))

/**
 * Renames Docker's labels to the option names they stand for. A dotted key that is nobody's option is a label of some
 * other program's: Docker ignores those, and so do we, unless told to `keep` them. A label of Docker's for another driver is
 * ignored as well. But one that is a slip of the pen away from a known label, or begins with `libcnm.`, was meant for us:
 * Docker drops it without a word, and the network is not what its owner believes. ERR_INVALID_OPTION names the right one.
 */
export function fromLabels(
  given: Record<string, unknown>,
  labels: Readonly<Record<string, string>>,
  keep = false,
): Record<string, unknown> {
  // By Object.fromEntries: a key such as `__proto__` becomes a property like any other, and is refused as unknown.
  return Object.fromEntries(
    Object.entries(given).flatMap(([key, value]) => {
      if (Object.hasOwn(labels, key)) return [[labels[key], value]]
      if (keep || !key.includes('.')) return [[key, value]]
      refuseSlip(key, labels)
      return []
    }),
  )
}

function refuseSlip(key: string, labels: Readonly<Record<string, string>>): void {
  const refused = (hint: string) =>
    new CnmError('ERR_INVALID_OPTION', `options.${printable(key)} is not an option; ${hint}`, { option: key })
  if (key.startsWith('libcnm.ipam.')) throw refused('options of address management belong into ipam.options')
  if (key.startsWith('libcnm.')) throw refused('no driver has a label of that prefix')
  if (!isDockers(key) || DOCKER_LABELS.has(key)) return
  const near = nearest(key, [...Object.keys(labels), ...DOCKER_LABELS])
  if (near !== undefined) throw refused(`did you mean ${near}?`)
}
