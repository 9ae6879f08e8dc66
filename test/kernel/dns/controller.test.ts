/** Names as a user of the library meets them, on the real kernel: asked with dig, getent and others from inside. */
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Controller, Sandbox } from 'libcnm'
import { bare, hostForEach, type TestHost } from '../../support/host'

const host = hostForEach()
const exec = promisify(execFile)
const config = (n: number) => ({ config: [{ subnet: `10.77.${n}.0/24` }] })

/** What a program prints inside; not by spawnSync, since it is this process that answers it. */
async function inside({ key }: { key: string | undefined }, program: string, ...words: string[]) {
  try {
    return (await exec('nsenter', [`--net=${key}`, program, ...words], { timeout: 20_000 })).stdout
  } catch (error) {
    const { stdout = '', stderr = '' } = error as { stdout?: string; stderr?: string }
    return stdout + stderr
  }
}
const dig = async (sandbox: Sandbox, ...words: string[]) =>
  (await inside(sandbox, 'dig', '@127.0.0.11', '+short', '+tries=1', '+timeout=7', ...words)).trim()
const status = async (sandbox: Sandbox, ...words: string[]) =>
  /status: (\w+)|(refused|no servers)/
    .exec(await inside(sandbox, 'dig', '@127.0.0.11', '+tries=1', '+timeout=7', ...words))
    ?.slice(1)
    .find(Boolean)

/** A program inside that reads the sandbox's own files, as if they were mounted. */
const withFiles = (sandbox: Sandbox, ...words: string[]) =>
  inside(
    sandbox,
    'unshare',
    '--mount',
    'sh',
    '-c',
    `mount --bind ${sandbox.files?.resolvConf} "$(readlink -f /etc/resolv.conf)" && mount --bind ${sandbox.files?.hosts} /etc/hosts && exec "$@"`,
    'sh',
    ...words,
  )

/** dnsmasq on an address of the host, which knows www.test. */
async function upstream(h: TestHost, address: string, answer: string): Promise<() => Promise<void>> {
  const child = spawn(
    'nsenter',
    [
      `--net=${h.path}`,
      'dnsmasq',
      '--keep-in-foreground',
      '--log-facility=-',
      '--conf-file=/dev/null',
      '--user=root',
      '--pid-file=',
      '--no-resolv',
      '--no-hosts',
      '--bind-interfaces',
      `--listen-address=${address}`,
      '--local=/test/',
      `--address=/www.test/${answer}`,
      '--local-ttl=1',
    ],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  )
  await new Promise<void>((resolve, reject) => {
    child.stderr.on('data', said => /started, version/.test(String(said)) && resolve())
    child.on('exit', () => reject(new Error('dnsmasq ended')))
  })
  return async () => {
    child.kill('SIGKILL')
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
  }
}

const boxOf = (controller: Controller, containerId: string, more: object = {}) =>
  controller.createSandbox({ containerId, hostname: `host-${containerId}`, ...more })

test('endpoint name, alias, short id, host name, each with its network; links for one; nothing of other networks', async () => {
  const controller = await host().open()
  const web = await controller.createNetwork({
    name: 'web',
    ipam: { config: [{ subnet: '10.77.1.0/24' }, { subnet: 'fd77:1::/64' }] },
  })
  const other = await controller.createNetwork({ name: 'other', ipam: config(2) })
  const id = 'abcdef0123456789abcdef'
  const [one, two] = [await boxOf(controller, 'one'), await boxOf(controller, id)]
  expect(await status(one, 'two')).toMatch(/refused|no servers/) // on no network yet
  const endpoint = await web.createEndpoint({ name: 'two', aliases: ['api'] })
  await endpoint.join(two)
  await (await web.createEndpoint({ name: 'one', aliases: ['api'], links: { mysql: 'two' } })).join(one)
  await (await other.createEndpoint({ name: 'apart' })).join(two)
  const address = bare(endpoint.ipv4)
  for (const name of ['two', 'TWO', 'abcdef012345', `host-${id}`, 'two.web', 'abcdef012345.web', 'mysql'])
    expect([name, await dig(one, name)]).toEqual([name, address])
  expect(await dig(one, 'two', 'AAAA')).toBe(bare(endpoint.ipv6))
  expect((await dig(one, 'api')).split('\n').sort()).toEqual(['10.77.1.2', '10.77.1.3'])
  expect(await dig(one, '+tcp', '-x', address)).toBe('two.web.')
  expect(await dig(one, '-x', bare(endpoint.ipv6))).toBe('two.web.')
  expect([await status(one, 'two', 'TXT'), await dig(one, 'two', 'TXT')]).toEqual(['NOERROR', ''])
  expect(await dig(two, 'apart')).not.toBe('')
  expect(await dig(one, 'apart')).toBe('')
  expect(await dig(two, 'mysql')).toBe('')

  await endpoint.setHealth(false)
  expect([await status(one, 'two'), await dig(one, 'two'), await dig(one, 'api')]).toEqual([
    'NOERROR',
    '',
    '10.77.1.3',
  ])
  await endpoint.setHealth(true)
  expect(await dig(one, 'two')).toBe(address)
  await web.update({ dns: { records: [{ name: '*.apps.test', type: 'A', value: '192.0.2.77' }] } })
  expect(await dig(one, 'x.apps.test')).toBe('192.0.2.77')
  await endpoint.leave()
  expect(await dig(one, 'two')).toBe('')
  await controller.close({ remove: true })
})

test('the default bridge has no resolver but a hosts file; another network brings one; setKey takes it along', async () => {
  const h = host()
  const controller = await h.open({ predefined: { bridge: 'docker0' } })
  const web = await controller.createNetwork({ name: 'web', ipam: config(1) })
  const [one, two] = [await boxOf(controller, 'one'), await boxOf(controller, 'two')]
  await (await controller.network('bridge').createEndpoint({ name: 'two' })).join(two)
  const target = controller.network('bridge').endpoint('two')
  const source = await controller
    .network('bridge')
    .createEndpoint({ name: 'one', links: { tomcat02: 'two' } })
  await source.join(one)
  expect(await status(one, 'two')).toMatch(/refused|no servers/)
  expect(readFileSync(one.files?.hosts as string, 'utf8')).toContain(`${bare(target.ipv4)}\ttomcat02`)
  expect(await withFiles(one, 'getent', 'ahostsv4', 'tomcat02')).toMatch(new RegExp(`^${bare(target.ipv4)} `))

  const [first, second] = [
    await web.createEndpoint({ name: 'one' }),
    await web.createEndpoint({ name: 'two' }),
  ]
  await first.join(one)
  await second.join(two)
  expect(await dig(one, 'two.web')).toBe(bare(second.ipv4))
  const place = await h.namespace('runtime')
  await one.setKey(place.path as string)
  expect(await dig(one, 'two.web')).toBe(bare(second.ipv4))
  expect(await withFiles(one, 'getent', 'ahostsv4', 'two.web')).toMatch(new RegExp(`^${bare(second.ipv4)} `))
  await first.leave()
  expect(await status(one, 'two')).toMatch(/refused|no servers/)
  await controller.close({ remove: true })
})

test('names of the world: the host’s servers for every client, followed when resolv.conf is replaced', async () => {
  const h = host()
  const stops = [
    await upstream(h, '127.0.0.2', '198.51.100.7'),
    await upstream(h, '127.0.0.3', '198.51.100.8'),
  ]
  const resolvConf = join(h.directory, 'resolv.conf')
  writeFileSync(resolvConf, 'nameserver 127.0.0.2\nsearch test\n')
  const controller = await h.open({ resolvConf })
  const web = await controller.createNetwork({ name: 'web', ipam: config(1) })
  const inner = await controller.createNetwork({ name: 'inner', internal: true, ipam: config(2) })
  const [one, two] = [await boxOf(controller, 'one'), await boxOf(controller, 'two')]
  await (await web.createEndpoint({ name: 'one' })).join(one)
  await (await inner.createEndpoint({ name: 'two' })).join(two)

  expect(await dig(one, 'www.test')).toBe('198.51.100.7')
  expect(await withFiles(one, 'getent', 'ahostsv4', 'www')).toMatch(/^198\.51\.100\.7 /) // by the search list
  expect(await withFiles(one, 'busybox', 'nslookup', 'www.test')).toMatch(/Address:\s+198\.51\.100\.7/)
  const script = `require('dns').promises.resolve4('www.test').then(found => console.log(found.join()))`
  expect(await withFiles(one, process.execPath, '-e', script)).toBe('198.51.100.7\n')
  expect(await status(one, 'no.test')).toBe('NXDOMAIN')
  expect(await status(two, 'www.test')).toBe('SERVFAIL') // internal: nothing is asked outside
  expect(await dig(two, 'two')).toBe('10.77.2.2')

  writeFileSync(`${resolvConf}.new`, 'nameserver 127.0.0.3\n')
  renameSync(`${resolvConf}.new`, resolvConf)
  let said = ''
  for (const limit = Date.now() + 8_000; said !== '198.51.100.8' && Date.now() < limit; ) {
    said = await dig(one, 'www.test')
    await new Promise(resolve => setTimeout(resolve, 20))
  }
  expect(said).toBe('198.51.100.8')

  for (const stop of stops) await stop()
  const start = performance.now()
  expect(await status(one, 'gone.test')).toBe('SERVFAIL')
  expect(performance.now() - start).toBeLessThan(5_000)
  await controller.close({ remove: true })
})
