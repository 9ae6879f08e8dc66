/** The words for true and false that Docker reads: those of Go's ParseBool. */
const TRUE: readonly string[] = ['1', 't', 'T', 'true', 'TRUE', 'True']
const FALSE: readonly string[] = ['0', 'f', 'F', 'false', 'FALSE', 'False']

export const BOOLEAN_WORDS = [...TRUE, ...FALSE] as [string, ...string[]]

/** Undefined for what is neither. */
export function parseBoolean(text: string): boolean | undefined {
  return TRUE.includes(text) ? true : FALSE.includes(text) ? false : undefined
}
