/** cnm as a process: serve on a socket, verbs against it and against the folder, signals, restart. */
import { type ChildProcess, spawn } from 'node:child_process'
import { chmodSync, existsSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { run, Scene, until } from './scene'

const root = join(__dirname, '../../..')
const CNM = ['-r', join(root, 'test/support/ts-child.cjs'), join(root, 'lib/cli/main.ts')]

let scene: Scene
beforeEach(async () => {
  scene = await Scene.open()
})
afterEach(() => scene.close())

const cnm = (...words: string[]) =>
  run(process.execPath, [...CNM, ...words], { ...process.env, CNM_HOST: `unix://${scene.socket}` })
const ok = async (...words: string[]) => {
  const { code, out, error } = await cnm(...words)
  expect([code, error]).toEqual([0, ''])
  return out.trim()
}
const here = () => [
  ...['--data-dir', join(scene.directory, 'data'), '--run-dir', join(scene.directory, 'run')],
  ...['--name', 'cnm-test', '--netns', scene.host.path ?? ''],
]

async function serve(...words: string[]): Promise<ChildProcess> {
  const child = spawn(process.execPath, [...CNM, 'serve', '--socket', scene.socket, ...here(), ...words], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let said = ''
  child.stdout.setEncoding('utf8').on('data', text => {
    said += text
  })
  scene.later(() => child.kill('SIGKILL'))
  await until(() => {
    if (child.exitCode !== null) throw new Error(`cnm serve ended with ${child.exitCode}`)
    return said.includes('serving')
  }, 'cnm serve')
  return child
}

async function stop(child: ChildProcess, signal: NodeJS.Signals = 'SIGTERM'): Promise<number | null> {
  const ended = new Promise<number | null>(resolve => child.once('close', resolve))
  child.kill(signal)
  return ended
}

test('serve, use, stop, start again, and use without a server', async () => {
  const first = await serve('--bip', '10.7.0.1/24')
  expect(statSync(scene.socket).mode & 0o777).toBe(0o600)
  await ok('network', 'create', '--subnet', '10.10.0.0/24', 'web')
  const key = await ok('sandbox', 'create', '--network', 'web', '-p', '8080:80', 'c1')
  expect(existsSync(key)).toBe(true)
  await ok('sandbox', 'create', '--network', 'web', 'c2')

  // exec: inside the namespace, with its files, and the exit code of the command
  expect(await ok('sandbox', 'exec', 'c1', 'ip', '-br', '-4', 'address', 'show', 'eth0')).toMatch(
    /10\.10\.0\.2\/24/,
  )
  expect(await ok('sandbox', 'exec', 'c1', 'cat', '/etc/hosts')).toMatch(/10\.10\.0\.2\s+c1/)
  expect((await cnm('sandbox', 'exec', 'c1', '--', 'sh', '-c', 'exit 7')).code).toBe(7)
  expect((await cnm('sandbox', 'exec', 'c1', 'nix-nix')).code).toBe(127)
  expect((await cnm('sandbox', 'exec', '--no-files', 'c1', 'sh', '-c', 'kill -9 $$')).code).toBe(137)
  await ok('sandbox', 'exec', 'c2', 'ping', '-c', '1', '-W', '2', '10.10.0.2')

  expect(await ok('top')).toMatch(/^c1\s+eth0/m)
  expect(await ok('graph')).toMatch(
    /veth\S+ ─ eth0 ─ c1 {2}\(gateway\)\n.*10\.10\.0\.2\/24\n.*8080 -> 80\/tcp/,
  )
  expect(await ok('check')).toBe('')

  // the folder is in use: a second process is refused
  expect(await cnm('network', 'ls', ...here())).toMatchObject({
    code: 125,
    error: expect.stringMatching(/ERR_STORE_LOCKED|ERR_CONTROLLER_EXISTS/),
  })

  expect(await stop(first)).toBe(0)
  expect(existsSync(scene.socket)).toBe(false)
  expect((await cnm('network', 'ls')).code).toBe(125)

  // all is there while nobody serves, and can be worked on in the process of the verb
  expect(await ok('network', 'ls', ...here(), '--format', '{{.Name}}')).toBe('bridge\nhost\nnone\nweb')
  expect(await ok('sandbox', 'ls', ...here(), '--format', '{{.Container}} {{.Addresses}}')).toBe(
    'c1 10.10.0.2/24\nc2 10.10.0.3/24',
  )

  // killed: the socket is left behind, and taken over
  const second = await serve('--bip', '10.7.0.1/24')
  await stop(second, 'SIGKILL')
  expect(existsSync(scene.socket)).toBe(true)
  const third = await serve('--bip', '10.7.0.1/24')
  expect(await ok('check')).toBe('')
  expect((await scene.docker('network', 'inspect', '-f', '{{len .Containers}}', 'web')).out).toBe('2\n')
  await ok('gc', '--all')
  await ok('network', 'rm', 'web')
  expect(await stop(third, 'SIGINT')).toBe(0)
}, 180_000) // some twenty processes, one after the other

test('a command line that is wrong, a host that is none', async () => {
  expect(await cnm('serve', '--nix')).toMatchObject({
    code: 2,
    error: expect.stringContaining('unknown option --nix'),
  })
  expect(await cnm('serve', '--socket', scene.socket, '--data-dir=', '--netns', '/nix')).toMatchObject({
    code: 125,
    error: expect.stringContaining('/nix'),
  })
  expect(await cnm('serve', '--socket', scene.socket, ...here(), '--bip', 'x')).toMatchObject({ code: 125 })
})

test('without the privileges: what is missing, and what to do', async () => {
  const words = ['--bounding-set=-all', '--inh-caps=-all', process.execPath, ...CNM]
  const here = ['--data-dir=', '--run-dir', join(scene.directory, 'run')]
  const { code, error } = await run('setpriv', [...words, 'serve', '--socket', scene.socket, ...here])
  expect([code, error]).toEqual([
    125,
    expect.stringMatching(/CAP_SYS_ADMIN[\s\S]*ERR_PRIVILEGE: run as root/),
  ])
})

test('the socket of somebody else: told apart from none', async () => {
  const child = await serve()
  const words = ['network', 'ls', '--host', `unix://${scene.socket}`]
  // Root without its capabilities is the owner still; so the owner takes its own rights away.
  chmodSync(scene.socket, 0)
  const none = ['--bounding-set=-all', '--inh-caps=-all', process.execPath, ...CNM]
  expect(await run('setpriv', [...none, ...words])).toMatchObject({
    code: 125,
    error: expect.stringContaining('permission denied; it is its owner’s alone'),
  })
  chmodSync(scene.socket, 0o600)
  await stop(child)
  expect(await cnm('network', 'ls')).toMatchObject({
    code: 125,
    error: expect.stringContaining('there is no such socket'),
  })
})
