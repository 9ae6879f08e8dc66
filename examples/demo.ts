/**
 * `npm start`: the whole of libcnm in half a minute, on the real kernel. Two networks, three containers (processes in
 * sandboxes of their own), pings and HTTP over IPv4 and IPv6, names, a published port, isolation. All of it happens in
 * private network namespaces: this machine's own links, addresses and firewall are not touched.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { Controller, type Endpoint, isCnmError, LinuxKernel, type Sandbox } from 'libcnm'

const run = promisify(execFile)
const started = Date.now()
const say = (text: string) =>
  console.log(`${((Date.now() - started) / 1000).toFixed(2).padStart(6)} s  ${text}`)
const bare = (cidr = '') => cidr.replace(/\/.*/, '')

/** Runs a program in a sandbox, with the sandbox's hosts and resolv.conf in place of the machine's. */
function inside({ key, files }: Sandbox, ...command: string[]): string[] {
  const mounts = `mount --bind "$1" /etc/hosts && mount --bind "$2" /etc/resolv.conf && shift 2 && exec "$@"`
  return [
    `--net=${key}`,
    'unshare',
    '--mount',
    'sh',
    '-c',
    mounts,
    'sh',
    files?.hosts ?? '',
    files?.resolvConf ?? '',
    ...command,
  ]
}

const WEB_SERVER = `require('http').createServer((request, response) =>
  response.end('hello ' + request.socket.remoteAddress)).listen(8080, '::', () => console.log('listening'))`
const FETCH = `require('http').get(process.argv[1], { timeout: 3000 }, response => {
  response.setEncoding('utf8').on('data', text => console.log(text)) }).on('error', error => { console.error(error.message); process.exit(1) })`

async function serve(sandbox: Sandbox): Promise<ChildProcess> {
  const child = spawn('nsenter', inside(sandbox, process.execPath, '-e', WEB_SERVER), {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  await new Promise<void>((resolve, reject) => {
    child.stdout?.once('data', () => resolve())
    child.once('exit', code => reject(new Error(`the web server ended (${code})`)))
  })
  return child
}

const get = async (sandbox: Sandbox, url: string) =>
  (await run('nsenter', inside(sandbox, process.execPath, '-e', FETCH, url))).stdout.trim()

async function ping(from: Sandbox, address: string): Promise<string> {
  const { stdout } = await run('nsenter', [`--net=${from.key}`, 'ping', '-c', '1', '-W', '2', address])
  return /time=([\d.]+ ms)/.exec(stdout)?.[1] ?? ''
}

async function unreachable(from: Sandbox, address: string): Promise<boolean> {
  return ping(from, address).then(
    () => false,
    () => true,
  )
}

function expect(condition: boolean, what: string): void {
  if (!condition) throw new Error(`this should not be: ${what}`)
}

async function main(): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'libcnm-demo-'))
  const kernel = new LinuxKernel()
  const cleanup: [string, () => unknown][] = [
    ['files', () => rmSync(directory, { recursive: true, force: true })],
  ]
  try {
    say('a private "host": a network namespace of its own, and one more for a client outside')
    const host = await kernel.create(join(directory, 'host'))
    cleanup.push(['host', () => (host.close(), kernel.remove(join(directory, 'host')))])
    const outside = await kernel.create(join(directory, 'outside'))
    cleanup.push(['client', () => (outside.close(), kernel.remove(join(directory, 'outside')))])
    await kernel.transact([
      {
        stack: host,
        changes: [
          {
            op: 'addLink',
            link: {
              kind: 'veth',
              name: 'uplink',
              up: true,
              peer: { name: 'eth0', netns: outside, up: true },
            },
          },
          { op: 'addAddress', link: 'uplink', address: '192.0.2.1/24' },
          { op: 'addAddress', link: 'uplink', address: '2001:db8::1/64' },
        ],
      },
      {
        stack: outside,
        changes: [
          { op: 'addAddress', link: 'eth0', address: '192.0.2.2/24' },
          { op: 'addAddress', link: 'eth0', address: '2001:db8::2/64' },
        ],
      },
    ])

    const controller = await Controller.open({ host: host.path, runDir: join(directory, 'run') })
    cleanup.push(['controller', () => controller.close()])
    say(`controller open; firewall: ${controller.firewallBackend}`)

    const web = await controller.createNetwork({ name: 'web', ipv6: true })
    const db = await controller.createNetwork({ name: 'db', ipv6: true, internal: true })
    say(
      `networks web (${web.ipam.map(pool => pool.subnet).join(', ')}) and db (${db.ipam.map(pool => pool.subnet).join(', ')}, internal)`,
    )

    const sandbox = async (containerId: string) =>
      controller.createSandbox({ containerId, hostname: containerId })
    const [front, api, store] = [await sandbox('front'), await sandbox('api'), await sandbox('store')]
    const joined: Endpoint[] = []
    const join_ = async (network: typeof web, where: Sandbox, ports: string[] = []) => {
      const endpoint = await network.createEndpoint({ name: where.containerId, ports })
      await endpoint.join(where)
      joined.push(endpoint)
      return endpoint
    }
    await join_(web, front)
    const apiOnWeb = await join_(web, api, ['18080:8080'])
    await join_(db, api)
    const storeOnDb = await join_(db, store)
    say('sandboxes front (on web), api (on both), store (on db)')

    const servers = [await serve(api), await serve(store)]
    cleanup.push(['servers', () => servers.map(server => server.kill('SIGKILL'))])

    say(`front pings api over IPv4: ${await ping(front, bare(apiOnWeb.ipv4))}`)
    say(`front pings api over IPv6: ${await ping(front, bare(apiOnWeb.ipv6))}`)
    say(`front asks http://api:8080/ by name: ${await get(front, 'http://api:8080/')}`)
    say(`front asks api over IPv6: ${await get(front, `http://[${bare(apiOnWeb.ipv6)}]:8080/`)}`)
    say(`api asks http://store:8080/ on the internal network: ${await get(api, 'http://store:8080/')}`)
    const stranger = { key: outside.path, files: front.files } as Sandbox
    say(`a client outside asks the published port: ${await get(stranger, 'http://192.0.2.1:18080/')}`)
    say(`... and over IPv6: ${await get(stranger, 'http://[2001:db8::1]:18080/')}`)
    expect(await unreachable(front, bare(storeOnDb.ipv4)), 'front reaches store, which is on another network')
    say('front cannot reach store: another network')
    expect((await controller.check()).length === 0, 'check() finds differences')

    console.log()
    console.table(
      joined.map(({ network, sandbox: where, interfaceName, ipv4, ipv6, mac, ports }) => ({
        network: network.name,
        bridge: network.link,
        sandbox: where?.containerId,
        interface: interfaceName,
        ipv4,
        ipv6,
        mac,
        published: ports
          .map(({ hostIp, hostPort, containerPort }) => `${hostIp}:${hostPort}->${containerPort}`)
          .join(' '),
      })),
    )

    for (const server of servers) server.kill('SIGKILL')
    for (const each of [front, api, store]) await each.delete()
    await web.delete()
    await db.delete()
    await controller.settle()
    const left = (await host.links())
      .map(({ name }) => name)
      .filter(name => name !== 'lo' && name !== 'uplink')
    expect(left.length === 0, `links are left: ${left.join(', ')}`)
    say('everything removed; the host is as it was')
  } finally {
    for (const [, undo] of cleanup.reverse()) await undo()
  }
}

main().catch((error: unknown) => {
  console.error(isCnmError(error) ? `${error.code}: ${error.message}\n${error.next}` : error)
  process.exitCode = 1
})
