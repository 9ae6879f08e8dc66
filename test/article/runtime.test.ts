/**
 * What the real docker client asks of the example runtime beside the article: each option of `docker run` that concerns
 * networks, looked at from inside, and the verbs that follow a container through its life, with and without a terminal.
 */
import { execFile } from 'node:child_process'
import { Terminal } from '../support/terminal'
import { openScene, type Scene } from './scene'

let scene: Scene
const docker = (line: string, ...more: string[]) => scene.docker(line, ...more)

beforeAll(async () => {
  scene = await openScene()
})
afterAll(() => scene?.close())

/** A docker client on a terminal. */
const terminal = (line: string) => new Terminal(`${scene.client} ${line}`, scene.env)

test('run -it: a terminal of the client’s size, its exit code, and nothing left of it', async () => {
  const shell = terminal('run -it --rm --name tty busybox')
  await shell.until(/\/ # /)
  shell.type('tty\n')
  await shell.until(/\/dev\/pts\/0/)
  // The client tells the size when the process is there already.
  await shell.until(/31 93/, 'stty size\n')
  shell.type('exit 7\n')
  expect(await shell.ended).toBe(7)
  expect(await docker('ps -aq --filter name=tty')).toBe('')
})

test('run -dit, attach, detach, exec -it', async () => {
  await docker('run -dit --name shell busybox')
  const shell = terminal('attach shell')
  await shell.until(/is 42/, 'echo is $((40 + 2))\n')
  shell.type('\x10\x11') // Ctrl-P Ctrl-Q
  await shell.ended // with 1 or 0: clients differ
  expect(shell.text).toContain('read escape sequence')
  const exec = terminal('exec -it shell sh')
  await exec.until(/\/ # /)
  exec.type('[ -t 0 ] && ip -o address show eth0 && exit 9\n')
  expect(await exec.ended).toBe(9)
  expect(exec.text).toContain('172.17.0.2/16')
  expect(await docker('inspect -f', '{{.State.Running}} {{.Config.Tty}}', 'shell')).toBe('true true\n')
  expect(await docker('rm -f shell')).toBe('shell\n')
})

test('run -i: what comes in, goes out; both streams apart', async () => {
  const ran = new Promise<{ out: string; error: string }>((resolve, reject) => {
    const child = execFile(
      scene.client,
      ['run', '--rm', '-i', 'busybox', 'sh', '-c', 'cat; echo aside >&2'],
      { env: scene.env },
      (failed, out, error) => (failed ? reject(failed) : resolve({ out, error })),
    )
    child.stdin?.end('through\n')
  })
  expect(await ran).toEqual({ out: 'through\n', error: 'aside\n' })
})

test('exec: the exit code of the command, or that of a shell which cannot start it', async () => {
  await docker('run -d --name codes busybox sleep 99')
  const codeOf = (...command: string[]) =>
    new Promise<number | undefined>(resolve => {
      execFile(scene.client, ['exec', 'codes', ...command], { env: scene.env }).once('exit', code =>
        resolve(code ?? undefined),
      )
    })
  const codes = [codeOf('sh', '-c', 'exit 255'), codeOf('nosuch'), codeOf('/etc/hosts')]
  expect(await Promise.all(codes)).toEqual([255, 127, 126])
  expect(await docker('rm -f codes')).toBe('codes\n')
})

test('an empty word of a command is a word; what is no signal, no time and no command is refused', async () => {
  const script = 'printf "<%s>" "$@"'
  expect(await docker('run --rm busybox sh -c', script, 'sh', 'a', '', 'b')).toBe('<a><><b>')
  await docker('run -d --name words busybox sleep 99')
  expect(await docker('exec words sh -c', script, 'sh', '', 'b')).toBe('<><b>')
  expect(await docker('kill -s NOSUCH words')).toMatch(/invalid signal: NOSUCH/i)
  expect(await docker('kill -s --all words')).toMatch(/invalid signal: --all/i)
  expect(await docker('run --rm --stop-signal 99 busybox true')).toMatch(/invalid signal: 99/i)
  expect(await docker('kill -s sigkill words')).toBe('words\n')
  expect(await docker('rm words')).toBe('words\n')
})

test('run --ip --ip6 --network-alias --mac-address -h --add-host --dns … -P --expose', async () => {
  await docker('network create --ipv6 --subnet 10.9.0.0/24 --subnet fd09::/64 web')
  await docker(
    'run -d --name all --network web --ip 10.9.0.50 --ip6 fd09::50 --network-alias api --network-alias www --mac-address 02:42:0a:09:00:50 -h box --add-host db:10.1.1.1 --dns 192.168.61.10 --dns-opt timeout:1 --dns-search example.com -P --expose 81 --expose 90-91/udp nginx',
  )
  const inside = await docker(
    'exec all sh -c',
    'ip address show eth0; hostname; cat /etc/hosts /etc/resolv.conf',
  )
  for (const text of ['inet 10.9.0.50/24', 'inet6 fd09::50/64', 'link/ether 02:42:0a:09:00:50'])
    expect(inside).toContain(text)
  for (const line of ['box', '10.1.1.1\tdb', '10.9.0.50\tbox', 'nameserver 127.0.0.11', 'search example.com'])
    expect(inside.split('\n')).toContain(line)
  expect(inside).toMatch(/^options .*timeout:1/m)

  const names = await docker('inspect -f', '{{json .NetworkSettings.Networks.web.DNSNames}}', 'all')
  expect(JSON.parse(names)).toEqual(['all', 'api', 'www', expect.stringMatching(/^[0-9a-f]{12}$/), 'box'])

  const ports = await docker('port all')
  expect(ports.match(/^\d+\/\w+(?= -> 0\.0\.0\.0)/gm)).toEqual(['80/tcp', '81/tcp', '90/udp', '91/udp'])
  const [, port] = /^80\/tcp -> 0\.0\.0\.0:(\d+)$/m.exec(ports) ?? []
  expect(await scene.onHost(`wget -qO- http://192.168.61.10:${port}/`)).toBe('It works!\n')
  expect(await docker('port all 81/tcp')).toMatch(/^0\.0\.0\.0:\d+\n\[::\]:\d+\n$/)
  expect(await docker('port all 82')).toContain('No public port')

  const seen = await docker(
    'run --rm --network web --mac-address 02:42:0a:09:00:51 busybox sh -c',
    'for name in all api www; do wget -qO- http://$name/; done; ping -6 -c1 www; ip address show eth0',
  )
  expect(seen).toMatch(/^It works!\nIt works!\nIt works!\n/)
  expect(seen).toMatch(/fd09::50[\s\S]*1 packets received/)
  expect(seen).toContain('02:42:0a:09:00:51')
  expect(await docker('run --rm busybox ping -c1 -W1 api')).toContain("bad address 'api'")
  const taken = await docker('run --rm --network web --ip 10.9.0.50 busybox true')
  expect(taken).toMatch(/failed: [\s\S]*Address already in use/)

  // The stack, the names and the ports of another container; its own files and processes.
  const shared = await docker(
    'run --rm --network container:all busybox sh -c',
    'hostname; cat /etc/hostname; wget -qO- http://127.0.0.1/; ps | grep -c [h]ttpd',
  )
  expect(shared).toMatch(/^box\nbox\nIt works!\n0\n/)
})

test('stop, start, restart: the same address, another process; then port, and rm', async () => {
  const state = () =>
    docker(
      'inspect -f',
      '{{.State.Running}} {{.State.Pid}} {{.NetworkSettings.Networks.web.IPAddress}}',
      'all',
    )
  const [, first] = (await state()).split(' ')
  expect(await docker('stop -t 0 all')).toBe('all\n')
  expect(await state()).toMatch(/^false 0 \n$/)
  expect(await docker('port all')).toBe('')
  expect(await docker('run --rm --network container:all busybox true')).toContain(
    'cannot join network of a non running container',
  )
  expect(await docker('start all')).toBe('all\n')
  const [, second] = (await state()).split(' ')
  expect(await docker('restart -t 0 all')).toBe('all\n')
  const [running, third, address] = (await state()).trim().split(' ')
  expect([running, address]).toEqual(['true', '10.9.0.50'])
  expect(new Set([first, second, third]).size).toBe(3)
  expect(await docker('exec all ip address show eth0')).toContain('10.9.0.50/24')
  expect(await docker('port all 80/tcp')).toMatch(/^0\.0\.0\.0:\d+\n/)
  expect(await docker('network rm web')).toContain('has active endpoints')
  expect(await docker('rm all')).toContain('container is running')
  expect(await docker('rm -f all')).toBe('all\n')
  expect(await docker('network rm web')).toBe('web\n')
})

test('who shares the network of another container has no say in it', async () => {
  await docker('run -d --name owner busybox sleep 99')
  const sharing = (flags: string) => docker(`run --rm --network container:owner ${flags} busybox true`)
  for (const [flags, refusal] of [
    ['-h other', 'hostname and the network mode'],
    ['--link owner:o', "container type network can't be used with links"],
    ['--dns 192.0.2.1', 'dns and the network mode'],
    ['--add-host a:192.0.2.1', 'custom host-to-IP mapping and the network mode'],
    ['-p 80', 'port publishing and the container type network mode'],
    ['-P', 'port publishing and the container type network mode'],
    ['--expose 80', 'port exposing and the container type network mode'],
  ] as const)
    expect(await sharing(flags)).toContain(`conflicting options: ${refusal}`)
  expect(await sharing('-t')).toBe('')
  expect(await docker('ps --format', '{{.Status}}')).toMatch(/^Up \d+ seconds?\n$/)
  expect(await docker('rm -f owner')).toBe('owner\n')
})

test('logs, logs -f, logs --tail', async () => {
  await docker('run -d --name talk busybox sh -c', 'for i in 1 2 3; do echo line $i; sleep 0.2; done')
  expect(await docker('logs -f talk')).toBe('line 1\nline 2\nline 3\n')
  expect(await docker('logs --tail 1 talk')).toBe('line 3\n')
  expect(await docker('wait talk')).toBe('0\n')
  expect(await docker('rm talk')).toBe('talk\n')
})

test('stopped: connect and disconnect are for the next start; inspect and ps tell', async () => {
  await docker('network create --subnet 10.8.0.0/24 first')
  await docker('network create --subnet 10.7.0.0/24 second')
  await docker('create --name idle --network first busybox sleep 99')
  expect(await docker('ps -q --filter name=idle')).toBe('')
  expect(await docker('ps -a --filter name=idle --format', '{{.Names}} {{.Status}} {{.Networks}}')).toBe(
    'idle Created first\n',
  )
  await docker('network connect --ip 10.7.0.70 --alias late second idle')
  await docker('network disconnect first idle')
  expect(await docker('network disconnect first idle')).toContain('is not connected to network first')
  expect(await docker('network inspect -f', '{{len .Containers}}', 'second')).toBe('0\n')
  await docker('start idle')
  expect(await docker('exec idle ip -o -4 address')).toMatch(/eth0 +inet 10\.7\.0\.70\/24/)
  expect(await docker('exec idle ip -o -4 address')).not.toContain('10.8.0.')
  expect(await docker('run --rm --network second busybox ping -c1 late')).toContain('1 packets received')
  // On a network of one's own a link is a name, and only for the one that asks for it.
  const buddy = await docker('run --rm --network second --link idle:buddy busybox ping -c1 buddy')
  expect(buddy).toContain('PING buddy (10.7.0.70)')
  expect(await docker('run --rm --network second busybox ping -c1 -W1 buddy')).toContain('bad address')
  expect(await docker('ps --filter name=idle --format', '{{.Names}} {{.Networks}}')).toBe('idle second\n')
  expect(
    await docker('inspect -f', '{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}', 'idle'),
  ).toBe('second \n')
  expect(await docker('rm -f idle')).toBe('idle\n')
  expect(await docker('network rm first second')).toBe('first\nsecond\n')
})

test('logs -f follows until the container is stopped, timestamps included', async () => {
  await docker('run -d --name clock busybox sh -c', 'trap exit TERM; while :; do date; sleep 0.2; done')
  const followed = docker('logs -f -t --tail 1 clock')
  // It has something to follow before it ends.
  await new Promise(resolve => setTimeout(resolve, 1_000))
  expect(await docker('stop -t 1 clock')).toBe('clock\n')
  const lines = (await followed).trim().split('\n')
  expect(lines.length).toBeGreaterThan(1)
  for (const line of lines) expect(line).toMatch(/^\d{4}-\d\d-\d\dT[\d:.]+Z \w{3} \w{3} /)
  expect(await docker('rm clock')).toBe('clock\n')
})

test('--link follows the container that it names', async () => {
  await docker('run -d --name store busybox sleep 99')
  await docker('run -d --name shop --link store:db busybox sleep 99')
  const hosts = () => docker('exec shop cat /etc/hosts')
  const id = (await docker('inspect -f {{.Id}} store')).slice(0, 12)
  expect(await hosts()).toContain(`\n172.17.0.2\tdb ${id} store\n`)
  expect(await docker('stop -t 0 store')).toBe('store\n')
  expect(await docker('run --rm --link store busybox true')).toContain(
    'Cannot link to a non running container',
  )
  await docker('run -d --name other busybox sleep 99')
  await docker('start store')
  const address = (await docker('inspect -f {{.NetworkSettings.IPAddress}} store')).trim()
  expect(await hosts()).toContain(`\n${address}\tdb ${id} store\n`)
  expect(await docker('rm -f shop store other')).toBe('shop\nstore\nother\n')
})
