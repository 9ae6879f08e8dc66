/** The error table of the README, rendered from the one that the library throws by. */
import { type ErrorCode, ERRORS } from '../../lib/base/errors'

export function errorsTable(): string {
  const rows = Object.entries(ERRORS).map(
    ([code, { kind, next }]) => `| \`${code as ErrorCode}\` | ${kind} | ${next} |`,
  )
  return ['| code | kind | what to do |', '|---|---|---|', ...rows].join('\n')
}

/** The text between `<!-- NAME -->` and `<!-- /NAME -->`. */
export function marked(document: string, name: string): string {
  const [, text = ''] = new RegExp(`<!-- ${name} -->\n([^]*?)\n?<!-- /${name} -->`).exec(document) ?? []
  return text
}
