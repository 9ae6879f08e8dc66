/** Who imports whom, by the words of the import lines. */
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize, relative } from 'node:path'

export const ROOT = join(__dirname, '../..')

export interface Import {
  /** Both from the root of the repository; `to` without extension when it is a file of ours, else the package's name. */
  from: string
  to: string
  ours: boolean
  /** Gone after compilation. */
  typeOnly: boolean
}

export function filesBelow(...directories: string[]): string[] {
  return directories.flatMap(directory =>
    readdirSync(join(ROOT, directory), { recursive: true, encoding: 'utf8' })
      .filter(file => file.endsWith('.ts') && !file.includes('node_modules'))
      .map(file => join(directory, file))
      .sort(),
  )
}

/** `import ... from 'x'`, `export ... from 'x'`, `import 'x'`, `import('x')`: over one line or several. */
export function importsOf(file: string): Import[] {
  const source = readFileSync(join(ROOT, file), 'utf8')
  const found: Import[] = []
  const add = (specifier: string, typeOnly: boolean) => {
    const ours = specifier.startsWith('.')
    const to = ours ? relative(ROOT, normalize(join(ROOT, dirname(file), specifier))) : specifier
    found.push({ from: file, to, ours, typeOnly })
  }
  let statement: string | undefined
  for (const line of source.split('\n')) {
    if (/^(import|export)\b/.test(line)) statement = ''
    if (statement !== undefined) {
      statement += `${line} `
      const specifier = /(?:\bfrom|^import) '([^']+)'\s*$/.exec(statement)?.[1]
      if (specifier !== undefined) add(specifier, isTypeOnly(statement))
      // a declaration, not a re-export
      if (specifier !== undefined || /^export (?!type \*|type \{|\*|\{)/.test(statement))
        statement = undefined
    }
    for (const [, specifier = ''] of line.matchAll(/\bimport\('([^']+)'\)/g))
      add(specifier, /\bimport\('[^']+'\)\.\w/.test(line))
  }
  return found
}

function isTypeOnly(statement: string): boolean {
  if (/^(import|export) type\b/.test(statement)) return true
  const names = /^\w+ \{(.*)\} from/.exec(statement)?.[1]
  if (names === undefined) return false
  const list = names.split(',').map(name => name.trim())
  return list.filter(Boolean).every(name => name.startsWith('type '))
}
