/** What the documents list is what there is. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { errorsTable, marked } from '../../support/errors-table'

const root = join(__dirname, '../../..')
const read = (name: string) => readFileSync(join(root, name), 'utf8')

test('the README has the table of errors (render it with errorsTable() of test/support/errors-table.ts)', () => {
  expect(marked(read('README.md'), 'errors')).toBe(errorsTable())
})

test('ARCHITECTURE.md shows the firewall as the kernel lists it', () => {
  const listing = readFileSync(join(root, 'test/unit/firewall/listing.nft-like'), 'utf8').trim()
  expect(marked(read('ARCHITECTURE.md'), 'listing')).toBe(`\`\`\`nft\n${listing}\n\`\`\``)
})
