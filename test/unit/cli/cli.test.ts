/** The verbs of cnm, run in this process against an API on the mocked kernel. */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { pairs, parseArgs, type Option } from '../../../lib/cli/args'
import { topTable } from '../../../lib/cli/commands/upkeep'
import { ago, bytes, painter, table, width } from '../../../lib/cli/output'
import { COMMANDS, run } from '../../../lib/cli/run'
import { controllerInput, SERVE_OPTIONS } from '../../../lib/cli/serve-options'
import { serve, type Served } from '../api/scene'

let served: Served
beforeEach(async () => {
  served = await serve()
})
afterEach(() => served.close())

interface Ran {
  code: number
  out: string
  error: string
}

interface How {
  tty?: boolean
  columns?: number
  confirm?: boolean
  env?: Record<string, string>
  signal?: AbortSignal
  onOut?(text: string): void
  onError?(text: string): void
}

async function cnm(
  words: string[],
  { tty = false, columns = 80, confirm = true, env, signal, onOut, onError }: How = {},
): Promise<Ran> {
  let out = ''
  let error = ''
  const code = await run(words, {
    out: text => {
      out += text
      onOut?.(text)
    },
    error: text => {
      error += text
      onError?.(text)
    },
    env: env ?? { CNM_HOST: `unix://${served.path}` },
    tty,
    columns,
    signal: signal ?? new AbortController().signal,
    confirm: async () => confirm,
  })
  return { code, out, error }
}

const ok = async (...words: string[]): Promise<string> => {
  const { code, out, error } = await cnm(words)
  expect([code, error]).toEqual([0, ''])
  return out
}

describe('network', () => {
  test('create with every option', async () => {
    const id = (
      await ok(
        ...'network create --attachable --aux-address r=10.10.0.2 --aux-address s=fd00:10::2 -d bridge --gateway 10.10.0.9 --gateway=fd00:10::9 --internal --ip-range 10.10.0.128/25 --ipam-driver default --ipam-opt com.docker.network.ipam.serial=true --ipv6 --label a=b --label flag -o com.docker.network.driver.mtu=1400 --scope local --subnet 10.10.0.0/24 --subnet fd00:10::/64 web'.split(
          ' ',
        ),
      )
    ).trim()
    const network = served.controller.network('web')
    expect(id).toBe(network.id)
    expect(JSON.parse(await ok('network', 'inspect', 'web'))).toMatchObject([
      {
        Attachable: true,
        Internal: true,
        EnableIPv6: true,
        Scope: 'local',
        Labels: { a: 'b', flag: '' },
        Options: { 'com.docker.network.driver.mtu': '1400' },
        IPAM: {
          Driver: 'default',
          Options: { 'com.docker.network.ipam.serial': 'true' },
          Config: [
            {
              Subnet: '10.10.0.0/24',
              IPRange: '10.10.0.128/25',
              Gateway: '10.10.0.9',
              AuxiliaryAddresses: { r: '10.10.0.2' },
            },
            { Subnet: 'fd00:10::/64', Gateway: 'fd00:10::9', AuxiliaryAddresses: { s: 'fd00:10::2' } },
          ],
        },
      },
    ])
  })

  test('config-only and config-from; ipv4 off', async () => {
    await ok('network', 'create', '--config-only', '--subnet', '10.10.0.0/24', 'conf')
    await ok('network', 'create', '--config-from', 'conf', 'web')
    expect(
      await ok(
        'network',
        'inspect',
        '-f',
        '{{range .IPAM.Config}}{{.Subnet}}{{end}} {{.ConfigFrom.Network}}',
        'web',
      ),
    ).toBe('10.10.0.0/24 conf\n')
    await ok('network', 'create', '--ipv4=false', '--ipv6', 'six')
    expect(await ok('network', 'inspect', '--format', '{{.EnableIPv4}} {{.EnableIPv6}}', 'six')).toBe(
      'false true\n',
    )
  })

  test('ls: tables, formats, filters, quiet', async () => {
    await ok('network', 'create', '--label', 'team=blue', '--subnet', '10.10.0.0/24', 'web')
    const { id } = served.controller.network('web')
    const lines = (await ok('network', 'ls')).split('\n')
    expect(lines[0]).toBe('NETWORK ID     NAME     DRIVER   SCOPE')
    expect(lines).toContain(`${id.slice(0, 12)}   web      bridge   local`)
    expect(await ok('network', 'ls', '-q', '--filter', 'name=web')).toBe(`${id.slice(0, 12)}\n`)
    expect(await ok('network', 'ls', '-q', '--no-trunc', '-f', 'type=custom')).toBe(`${id}\n`)
    expect(
      await ok('network', 'list', '--format', '{{.Name}}:{{.Label "team"}}:{{.Subnets}}', '-f', 'label=team'),
    ).toBe('web:blue:10.10.0.0/24\n')
    expect(await ok('network', 'ls', '--format', 'table {{.Name}}\\t{{.Driver}}', '-f', 'driver=host')).toBe(
      'NAME   DRIVER\nhost   host\n',
    )
    expect(JSON.parse(await ok('network', 'ls', '--format', 'json', '-f', 'name=web'))).toMatchObject({
      Name: 'web',
      ID: id.slice(0, 12),
      Labels: 'team=blue',
      IPv6: false,
    })
  })

  test('connect, disconnect, rm, prune', async () => {
    await ok('network', 'create', '--subnet', '10.10.0.0/24', 'web')
    await ok('sandbox', 'create', 'c1')
    await ok(
      ...'network connect --ip 10.10.0.9 --alias api --mac-address 02:00:00:00:00:09 --gw-priority 3 web c1'.split(
        ' ',
      ),
    )
    const [endpoint] = served.controller.sandbox('c1').endpoints()
    expect(endpoint?.inspect()).toMatchObject({
      ipv4: '10.10.0.9/24',
      aliases: ['api'],
      mac: '02:00:00:00:00:09',
    })
    expect(await cnm(['network', 'rm', 'web', 'nix'])).toEqual({
      code: 1,
      out: '',
      error: expect.stringMatching(
        /^cnm: error while removing network: network web has active endpoints .*\ncnm: network nix not found\n$/,
      ),
    })
    await ok('network', 'disconnect', 'web', 'c1')
    await ok('network', 'connect', '-p', '8080:80', 'web', 'c1')
    expect(served.controller.sandbox('c1').endpoints()[0]?.inspect().bindings).toEqual([
      { containerPort: 80, hostPort: 8080, protocol: 'tcp' },
    ])
    await ok('network', 'disconnect', '--force', 'web', 'c1')
    expect(await ok('network', 'rm', 'web')).toBe('web\n')
    expect(await ok('network', 'rm', '-f', 'web')).toBe('web\n')
    await ok('network', 'create', 'a')
    await ok('network', 'create', '--label', 'keep', 'b')
    expect(await cnm(['network', 'prune'], { confirm: false })).toMatchObject({ code: 1, out: '' })
    expect(await ok('network', 'prune', '-f', '--filter', 'label!=keep')).toBe('a\n')
    expect((await cnm(['network', 'prune'])).out).toBe('b\n')
  })

  test('inspect: what is found is shown, what is not is told', async () => {
    const { code, out, error } = await cnm(['network', 'inspect', 'nix', 'host'])
    expect([code, error]).toEqual([1, 'cnm: network nix not found\n'])
    expect(JSON.parse(out)).toMatchObject([{ Name: 'host' }])
  })
})

test('sandboxes', async () => {
  await ok('network', 'create', '--subnet', '10.10.0.0/24', 'web')
  const words = [
    '--hostname',
    'one',
    '--dns',
    '192.0.2.53',
    '--dns-search',
    'example',
    '--dns-opt',
    'ndots:2',
    '--add-host',
    'a:192.0.2.1',
  ]
  const key = await ok(
    'sandbox',
    'create',
    ...words,
    '--label',
    'x=y',
    '--network',
    'web',
    '-p',
    '8080:80',
    'c1',
  )
  expect(key).toBe(`${served.controller.sandbox('c1').key}\n`)
  expect(served.controller.sandbox('c1').inspect()).toMatchObject({ hostname: 'one', labels: { x: 'y' } })
  expect(await ok('sandbox', 'ls', '--format', '{{.Container}} {{.Mode}} {{.Networks}} {{.Addresses}}')).toBe(
    'c1 own web 10.10.0.2/24\n',
  )
  expect(await ok('sandbox', 'inspect', '-f', '{{.ContainerId}}', 'c1')).toBe('c1\n')
  // one that cannot be connected is not left behind
  expect((await cnm(['sandbox', 'create', '--network', 'nix', 'c2'])).code).toBe(1)
  expect(served.controller.sandboxes()).toHaveLength(1)
  expect(await ok('sandbox', 'rm', 'c1')).toBe('c1\n')
  expect((await cnm(['sandbox', 'rm', 'c1'])).error).toBe('cnm: sandbox c1 not found\n')
})

test('check, repair, gc', async () => {
  expect(await ok('check')).toBe('')
  await ok('network', 'create', '-o', 'com.docker.network.bridge.name=br-web', 'web')
  const host = await served.kernel.open()
  await host.apply([{ op: 'setLink', link: 'br-web', up: false }])
  const { code, out } = await cnm(['check'])
  expect(code).toBe(1)
  expect(out).toMatch(/br-web/)
  expect((await cnm(['check', '--format', '{{.Kind}}'])).out).toMatch(/link/)
  expect(await ok('repair')).toMatch(/br-web/)
  expect(await ok('check')).toBe('')
  await ok('sandbox', 'create', 'c1')
  await ok('sandbox', 'create', 'c2')
  expect((await cnm(['gc'])).code).toBe(2)
  expect(await ok('gc', 'c2')).toBe('c1\n')
  expect(await ok('gc', '--all')).toBe('c2\n')
})

test('watch shows what happens, and ends when told', async () => {
  const stop = new AbortController()
  let begun = () => {}
  const first = new Promise<void>(resolve => {
    begun = resolve
  })
  const watching = cnm(
    ['watch', '--type', 'network.create', '-f', '{{.type}} {{.network.name}}', '-n', '2'],
    {
      onOut: begun,
    },
  )
  let hear = () => {}
  const heard = new Promise<void>(resolve => {
    hear = resolve
  })
  let seen = ''
  let told = () => {}
  const last = new Promise<void>(resolve => {
    told = resolve
  })
  const onOut = (text: string) => {
    seen += text
    if (seen.includes('network.create last ')) told()
  }
  const endless = cnm(['watch'], { signal: stop.signal, onError: hear, onOut })
  await heard
  const early = cnm(['watch'], { signal: AbortSignal.abort() })
  expect(await early).toMatchObject({ code: 0, out: '' })
  for (let at = 0; ; at++) {
    await served.controller.createNetwork({ name: `n${at}` })
    if (
      await Promise.race([
        first.then(() => true),
        new Promise<boolean>(resolve => setTimeout(resolve, 20, false)),
      ])
    )
      break
  }
  await served.controller.createNetwork({ name: 'last' })
  const { code, out } = await watching
  expect(code).toBe(0)
  expect(out.split('\n')).toHaveLength(3)
  await last
  stop.abort()
  expect(await endless).toMatchObject({
    code: 0,
    out: expect.stringContaining('network.create last driver=bridge'),
    error: 'watching; Ctrl-C ends\n',
  })
})

test('top', async () => {
  await ok('network', 'create', 'web')
  await ok('sandbox', 'create', '--network', 'web', 'c1')
  expect(await ok('top')).toMatch(/^CONTAINER\s+LINK\s+IN.*\nc1\s+eth0\s+-\s+-\s+0 B/)
  const counters = {
    rxBytes: 1_000_000,
    txBytes: 0,
    rxPackets: 10,
    txPackets: 0,
    rxErrors: 0,
    txErrors: 1,
    rxDropped: 2,
    txDropped: 0,
  }
  const sample = (time: number, rxBytes: number) => ({
    time,
    sandboxes: [{ containerId: 'c1', statistics: { eth0: { ...counters, rxBytes } } }],
  })
  expect(topTable(sample(3000, 5_000_000), sample(1000, 1_000_000)).split('\n')[1]?.split(/ {2,}/)).toEqual([
    'c1',
    'eth0',
    '2 MB/s',
    '0 B/s',
    '5 MB',
    '0 B',
    '10',
    '0',
    '2',
    '1',
  ])
})

test('graph: on the networks host and none there is no interface of one’s own', async () => {
  await ok('sandbox', 'create', '--mode', 'host', 'h1')
  await ok('network', 'connect', 'host', 'h1')
  await ok('sandbox', 'create', 'n1')
  await ok('network', 'connect', 'none', 'n1')
  const text = await ok('graph')
  expect(text).toMatch(/^host {2}host\n└─ h1$/m)
  expect(text).toMatch(/^none {2}null\n└─ n1$/m)
  expect((await ok('graph', '--output', 'svg')).match(/no interface of its own/g)).toHaveLength(2)
})

test('graph', async () => {
  await ok('network', 'create', '--subnet', '10.10.0.0/24', 'web')
  await ok('sandbox', 'create', '--network', 'web', '-p', '8080:80', 'c1')
  const text = await ok('graph')
  expect(text).toMatch(/web {2}bridge br-/)
  // published for both families: shown once
  expect(text).toMatch(/ ─ eth0 ─ c1 {2}\(gateway\)\n.*10\.10\.0\.2\/24\n {6}8080 -> 80\/tcp\n$/)
  expect(await ok('graph', '--output', 'svg')).toMatch(/^<\?xml/)
  const file = join(served.directory, 'graph.svg')
  expect(await ok('graph', '--svg', file)).toBe('')
  for (const [bad, why] of [
    [join(served.directory, 'nix', 'graph.svg'), /cannot write .*: there is no folder .*nix; make it first/],
    [served.directory, /cannot write .*: it is a folder/],
  ] as const) {
    const { code, error } = await cnm(['graph', '--svg', bad])
    expect([code, error]).toEqual([1, expect.stringMatching(why)])
  }
  expect(readFileSync(file, 'utf8')).toMatch(/<\/svg>\n$/)
  expect(JSON.parse(await ok('graph', '--output', 'json'))).toMatchObject({ firewall: 'none' })
})

describe('the command line', () => {
  test.each<[string[], number, RegExp]>([
    [[], 2, /^NAME\n {2}cnm - /],
    [['nonsense'], 2, /^cnm: no such command: nonsense\n/],
    [['netwrok'], 2, /did you mean network\?/],
    [['network'], 2, /^cnm: cnm network is followed by connect, create/],
    [['network', 'creat'], 2, /did you mean create\?/],
    [
      ['network', 'create'],
      2,
      /^cnm: cnm network create takes NETWORK; 0 given\nSee "cnm network create --help"\.\n$/,
    ],
    [['network', 'nix'], 2, /\nSee "cnm network --help"\.\n$/],
    [['nix'], 2, /\nSee "cnm --help"\.\n$/],
    [
      ['network', 'ls', '--socket', '/x'],
      2,
      /unknown option --socket; did you mean --host\?\nSee "cnm network ls --help"/,
    ],
    [['serve', '--host', 'unix:///x'], 2, /unknown option --host; did you mean --socket\?/],
    [['watch', '--type', 'nope'], 2, /--type must be one of network\.create, .*not "nope"/],
    [['network', 'ls', '--format', '{{.Nope}}'], 2, /there is no field Nope; there are: ID, Name, Driver/],
    [['network', 'ls', '--format', 'table {{.ID}} {{range .Nope}}{{end}}'], 2, /there is no field Nope/],
    [['network', 'inspect', '-f', '{{.Nope}}', 'host'], 2, /there is no field Nope; there are: Name, Id, /],
    [['network', 'inspect', '-f', 'table {{.Name}}', 'host'], 2, /a table is for lists/],
    [['network', 'ls', 'x'], 2, /takes no words beside its options, not "x"/],
    [['network', 'ls', '--formta', 'x'], 2, /unknown option --formta; did you mean --format\?/],
    [['network', 'ls', '-z'], 2, /unknown option -z/],
    [['network', 'ls', '--format'], 2, /--format needs a value: TEMPLATE/],
    [['network', 'ls', '--format', '{{'], 2, /^cnm: template: unclosed action/],
    [['network', 'ls', '--quiet=perhaps'], 2, /--quiet is a flag: true or false/],
    [['network', 'create', '--gateway', '10.0.0.1', 'x'], 2, /need a --subnet/],
    [['network', 'create', '--label', '=x', 'x'], 2, /--label takes KEY=VALUE/],
    [['network', 'connect', '--gw-priority', 'x', 'a', 'b'], 2, /--gw-priority must be a whole number/],
    [['graph', '--output', 'png'], 2, /--output must be one of text, svg, json, not "png"/],
    [['completion', 'tcsh'], 2, /completion is for bash, zsh, fish/],
    [['network', 'ls', '--host', 'tcp://x'], 2, /the host must be unix:\/\/PATH/],
    [['network', 'ls', '--netns', '/x'], 2, /--netns goes with --data-dir/],
    [['-H', 'unix:///nix', 'network', 'ls'], 125, /^cnm: cannot reach \/nix: there is no such socket/],
    [['--host=unix:///nix', 'network', 'ls'], 125, /^cnm: cannot reach \/nix: there is no such socket/],
    [['-Hunix:///nix', 'sandbox', 'exec', 'c1', 'true'], 125, /^cnm: cannot reach \/nix/],
    [['-H'], 2, /^NAME/],
    [['--nix', 'network', 'ls'], 2, /no such command: --nix/],
    [['-H', 'x', 'completion', 'bash'], 2, /unknown option -H/],
    [['network', 'ls', '-H', 'unix:///nix'], 125, /^cnm: cannot reach \/nix: there is no such socket/],
    [['network', 'ls', '--data-dir', 'relative'], 125, /must be an absolute path/],
    [['network', 'create', 'host'], 1, /^cnm: operation is not permitted on predefined host network/],
    [['top', '--interval', '0'], 2, /--interval must be/],
    [['watch', '-n', '0'], 2, /--count must be a number above 0/],
  ])('%j: exit code %i', async (words, code, error) => {
    const ran = await cnm(words)
    expect([ran.code, ran.out]).toEqual([code, ''])
    expect(ran.error).toMatch(error)
  })

  test.each([80, 120])('help fits a terminal of %i columns', async columns => {
    for (const words of [[], ['network'], ...COMMANDS.map(({ name }) => name.split(' '))]) {
      const { out } = await cnm([...words, '--help'], { columns })
      const [head = '', tail = ''] = out.split(/\nEXAMPLES[\s\S]*?(?=\nEXIT STATUS)/)
      for (const line of `${head}${tail}`.split('\n').filter(text => !/^ {2}cnm /.test(text)))
        expect(line.length).toBeLessThanOrEqual(columns)
    }
  })

  test.each(['network', 'sandbox'])('help for the group %s', async group => {
    const { code, out, error } = await cnm([group, '--help'])
    expect([code, error]).toEqual([0, ''])
    for (const { name, summary } of COMMANDS.filter(command => command.name.startsWith(`${group} `)))
      expect(out).toMatch(new RegExp(`${name} +${summary}`))
    expect(out).not.toContain('completion')
    expect(await cnm([group, '-h'])).toEqual({ code, out, error })
    expect(await cnm(['help', group])).toEqual({ code, out, error })
    expect((await cnm([group])).code).toBe(2)
  })

  test('help for each verb, its options included', async () => {
    expect((await cnm(['--help'])).out).toMatch(/COMMANDS/)
    expect((await cnm(['--version'])).out).toMatch(/^cnm \d+\.\d+\.\d+\n$/)
    for (const command of COMMANDS) {
      const words = command.name.split(' ')
      const { code, out } = await cnm([...words, '--help'])
      expect(code).toBe(0)
      expect(out).toMatch(new RegExp(`^NAME\n  cnm ${command.name} - `))
      for (const { name } of command.options) expect(out).toContain(`--${name}`)
      expect((await cnm(['help', ...words])).out).toBe(out)
    }
  })

  test('a verb that asks a server loads nothing of what makes one', () => {
    const root = join(__dirname, '../../..')
    const script = `
      require('./lib/cli/run.ts')
      const loaded = Object.keys(require.cache).map(file => require('node:path').relative('.', file))
      console.log(loaded.filter(file => /zod|lmdb|etcd|ffi|^lib.(kernel|controller|core|cni|api.networks)/.test(file)).join())`
    const words = ['-r', './test/support/ts-child.cjs', '-e', script]
    const { stdout, stderr } = spawnSync(process.execPath, words, { cwd: root, encoding: 'utf8' })
    expect([stdout, stderr]).toEqual(['\n', ''])
  })

  test('short options, bundles, values and the end of options', () => {
    const options: Option[] = [
      { name: 'all', short: 'a', kind: 'flag', help: '' },
      { name: 'quiet', short: 'q', kind: 'flag', help: '' },
      { name: 'opt', short: 'o', kind: 'many', help: '' },
      { name: 'driver', short: 'd', kind: 'one', help: '' },
    ]
    const { values, args } = parseArgs(
      ['-aq', '-oa=b', '-o', 'c', '--opt=d=e', '-d=x', 'w', '--', '-a'],
      options,
    )
    expect([
      values.flag('all'),
      values.flag('quiet'),
      values.many('opt'),
      values.one('driver'),
      args,
    ]).toEqual([true, true, ['a=b', 'c', 'd=e'], 'x', ['w', '-a']])
    expect(parseArgs(['-q=false'], options).values.given('quiet')).toBe(false)
    expect(parseArgs([], options).values.given('quiet')).toBeUndefined()
    expect(pairs(['a=b=c', 'd', '__proto__=x'], 'label')).toEqual(
      JSON.parse('{"a":"b=c","d":"","__proto__":"x"}'),
    )
    expect(parseArgs(['-a', 'c1', 'ls', '-a', '--all'], options, { stopAtWord: 1 }).args).toEqual([
      'c1',
      'ls',
      '-a',
      '--all',
    ])
  })

  test('colours on a terminal only', () => {
    const env = {}
    expect(painter({ tty: true, env })('red', 'x')).toBe('\u001b[31mx\u001b[0m')
    for (const how of [
      { tty: false, env },
      { tty: true, env: { NO_COLOR: '1' } },
      { tty: true, env: { TERM: 'dumb' } },
    ])
      expect(painter(how)('red', 'x')).toBe('x')
  })

  test('tables and numbers', () => {
    expect(
      table([
        ['A', 'B'],
        ['日本', 'x'],
        ['e\u0301', '\u001b[31m'],
      ]),
    ).toBe('A      B\n日本   x\ne\u0301      \\x1b[31m\n')
    expect(width('日本')).toBe(4)
    expect([0, 999, 1500, 20_000_000].map(bytes)).toEqual(['0 B', '999 B', '1.5 kB', '20 MB'])
    expect([ago(0, 500), ago(0, 61_000), ago(0, 7_200_000)]).toEqual([
      '0 seconds ago',
      '1 minute ago',
      '2 hours ago',
    ])
  })
})

describe('cnm serve', () => {
  const input = (...words: string[]) => controllerInput(parseArgs(words, SERVE_OPTIONS).values)

  test('without options: as dockerd is without', () => {
    expect(input()).toEqual({
      dataDir: '/var/lib/libcnm',
      firewall: 'auto',
      ipForward: true,
      userlandProxy: true,
      dns: { servers: [], search: [], options: [] },
      predefined: { icc: true, ipMasq: true, ipv6: false },
    })
  })

  test('every option', () => {
    expect(
      input(
        ...'--data-dir= --run-dir /r --name x --netns /n --bridge br0 --bip 10.1.0.1/16 --bip6 fd00::1/64 --fixed-cidr 10.1.1.0/24 --fixed-cidr-v6 fd00::/80 --default-gateway 10.1.0.9 --default-gateway-v6 fd00::9 --default-address-pool base=10.2.0.0/16,size=24 --dns 192.0.2.53 --dns-opt ndots:1 --dns-search example --firewall-backend iptables --icc=false --ip 192.0.2.1 --ip-forward=false --ip-masq=false --ipv6 --mtu 1400 --userland-proxy=false'.split(
          ' ',
        ),
      ),
    ).toEqual({
      name: 'x',
      runDir: '/r',
      host: '/n',
      firewall: 'iptables',
      ipForward: false,
      userlandProxy: false,
      addressPools: [{ base: '10.2.0.0/16', size: 24 }],
      mtu: 1400,
      dns: { servers: ['192.0.2.53'], search: ['example'], options: ['ndots:1'] },
      predefined: {
        bridge: 'br0',
        bip: '10.1.0.1/16',
        bip6: 'fd00::1/64',
        fixedCidr: '10.1.1.0/24',
        fixedCidrV6: 'fd00::/80',
        defaultGateway: '10.1.0.9',
        defaultGatewayV6: 'fd00::9',
        icc: false,
        ipMasq: false,
        ipv6: true,
        hostBinding: '192.0.2.1',
      },
    })
  })

  test('iptables=false is no firewall', () => {
    expect(input('--iptables=false')?.firewall).toBe('none')
    expect(() => input('--iptables=false', '--firewall-backend', 'nftables')).toThrow('contradict')
    expect(() => input('--default-address-pool', '10.0.0.0/8')).toThrow('base=CIDR,size=BITS')
    expect(() => input('--mtu', 'x')).toThrow('--mtu')
  })
})
