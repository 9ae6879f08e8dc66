/** What `console.log` and `JSON.stringify` make of the nouns. */
import { inspect } from 'node:util'
import { fresh, joined, networkOf, sandboxOf } from './scene'

const plain = (value: unknown) => inspect(value, { colors: false })

test('each noun is told from others at a glance, and says when it is gone', async () => {
  const { controller } = await fresh()
  const web = await networkOf(controller, 'web', 1)
  const c1 = await sandboxOf(controller, 'c1')
  const endpoint = await joined(web, c1)
  const id = ({ id }: { id: string }) => id.slice(0, 12)
  const shown = [
    `Controller { name: 'libcnm', firewall: 'none', networks: 1, sandboxes: 1 }`,
    `Network { name: 'web', id: '${id(web)}', driver: 'bridge', subnets: [ '10.1.0.0/24' ], endpoints: 1 }`,
    `Endpoint { name: 'c1', id: '${id(endpoint)}', network: 'web', ipv4: '10.1.0.2/24', sandbox: 'c1', interfaceName: 'eth0' }`,
    `Sandbox { containerId: 'c1', id: '${id(c1)}', mode: 'own', key: '${c1.key}', endpoints: [ 'web/c1' ] }`,
  ]
  expect([controller, web, endpoint, c1].map(plain)).toEqual(shown)
  expect(plain({ web })).toBe(`{\n  web: ${shown[1]}\n}`)
  for (const noun of [controller, web, endpoint, c1])
    expect(JSON.parse(JSON.stringify(noun))).toEqual(JSON.parse(JSON.stringify(noun.inspect())))
  await c1.delete()
  await web.delete()
  for (const noun of [web, endpoint, c1]) {
    expect(plain(noun)).toMatch(/deleted: true }$/)
    JSON.stringify(noun)
  }
  await controller.close()
  expect(plain(controller)).toMatch(/closed: true }$/)
})
