/** `npm run bench -- NAME [ARG...]`: runs test/bench/NAME.ts. */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'

async function main(): Promise<void> {
  const known = readdirSync(__dirname)
    .filter(file => file.endsWith('.js') && file !== 'main.js')
    .map(file => file.slice(0, -3))
  const name = process.argv[2]
  if (!name || !known.includes(name)) {
    console.error(`usage: npm run bench -- ${known.join('|')}`)
    process.exitCode = 2
    return
  }
  const benchmark = (await import(join(__dirname, `${name}.js`))) as { run(): Promise<void> }
  await benchmark.run()
}

void main()
