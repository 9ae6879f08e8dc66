import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { FilesRequest, SandboxFiles } from '../../../../lib/dns/files/contract'
import { openFiles } from '../../../../lib/dns/files/files'
import { hostResolvConf } from '../../../../lib/dns/files/follow'
import { linkEnvironment, linkHosts } from '../../../../lib/dns/files/links'
import { parseResolvConf } from '../../../../lib/dns/files/resolvconf'
import { followUpstreams } from '../../../../lib/dns/files/upstreams'

let root: string
const opened: SandboxFiles[] = []
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'cnm-files-'))
})
afterEach(() => {
  for (const files of opened.splice(0)) files.close()
  rmSync(root, { recursive: true, force: true })
})

const HOST = 'nameserver 127.0.0.53\nnameserver 192.0.2.53\nsearch corp.example\noptions edns0 trust-ad\n'

function open(over: Partial<FilesRequest> = {}, host = HOST): SandboxFiles {
  const resolvConf = join(root, 'host-resolv.conf')
  writeFileSync(resolvConf, host)
  const files = openFiles({
    directory: join(root, 'box'),
    hostname: 'c294a750a97d',
    extraHosts: [],
    dns: { servers: [], search: [], options: [] },
    resolvConf,
    ...over,
  })
  opened.push(files)
  return files
}
const read = (files: SandboxFiles, which: 'hosts' | 'resolvConf' | 'hostname') =>
  readFileSync(files.paths[which], 'utf8')
const until = async (what: () => boolean): Promise<void> => {
  for (let i = 0; i < 500 && !what(); i++) await new Promise(resolve => setTimeout(resolve, 10))
  expect(what()).toBe(true)
}

describe('hosts', () => {
  const BASE = `127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
ff00::0\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
`

  test('has loopback, extra hosts, links, then a line for each address', () => {
    const files = open({
      extraHosts: ['db:10.0.0.1', 'v6=[FD00::1]', 'up:host-gateway'],
      hostGateway: '172.17.0.1',
    })
    files.setEntries('e1', [{ address: '172.17.0.3', names: ['c294a750a97d'] }])
    files.setLinks([{ address: '172.17.0.2', names: ['tomcat02', '0f89ad0c38a4'] }])
    files.write('legacy', true)
    expect(read(files, 'hosts')).toBe(
      `${BASE}10.0.0.1\tdb\nfd00::1\tv6\n172.17.0.1\tup\n172.17.0.2\ttomcat02 0f89ad0c38a4\n172.17.0.3\tc294a750a97d\n`,
    )
    expect(read(files, 'hostname')).toBe('c294a750a97d\n')
  })

  test('without IPv6 says nothing of ::1', () => {
    const files = open()
    files.write('embedded', false)
    expect(read(files, 'hosts')).toBe('127.0.0.1\tlocalhost\n')
  })

  test('is written in place as endpoints come and go, and as a link’s target moves', () => {
    const files = open()
    files.setEntries('e1', [{ address: '10.0.0.1', names: ['box'] }])
    files.write('embedded', true)
    const { ino } = statSync(files.paths.hosts)
    files.setEntries('e2', [{ address: '10.1.0.1', names: ['box'] }])
    files.setLinks([{ address: '10.0.0.8', names: ['db'] }])
    files.write('embedded', true)
    expect(read(files, 'hosts')).toBe(`${BASE}10.0.0.8\tdb\n10.0.0.1\tbox\n10.1.0.1\tbox\n`)
    files.removeEntries('e1')
    files.setLinks([{ address: '10.0.0.9', names: ['db'] }])
    files.write('embedded', true)
    expect(read(files, 'hosts')).toBe(`${BASE}10.0.0.9\tdb\n10.1.0.1\tbox\n`)
    expect(statSync(files.paths.hosts).ino).toBe(ino)
  })

  test('keeps the lines that somebody added, and leaves out those that somebody took out', () => {
    const files = open()
    files.setEntries('e1', [{ address: '10.0.0.1', names: ['box'] }])
    files.write('embedded', true)
    appendFileSync(files.paths.hosts, '192.0.2.7\tmine')
    writeFileSync(files.paths.hosts, read(files, 'hosts').replace('fe00::0\tip6-localnet\n', ''))
    files.setEntries('e1', [{ address: '10.0.0.2', names: ['box'] }])
    files.write('embedded', true)
    const edited = BASE.replace('fe00::0\tip6-localnet\n', '')
    expect(read(files, 'hosts')).toBe(`${edited}192.0.2.7\tmine\n10.0.0.2\tbox\n`)
    files.removeEntries('e1')
    files.write('embedded', true)
    expect(read(files, 'hosts')).toBe(`${edited}192.0.2.7\tmine\n`)
  })

  test('is ours again after a restart, and rewritten as a whole', () => {
    const first = open()
    first.setEntries('e1', [{ address: '10.0.0.1', names: ['box'] }])
    first.write('embedded', true)
    first.close()
    const second = open()
    second.setEntries('e2', [{ address: '10.0.0.2', names: ['box'] }])
    second.write('embedded', true)
    expect(read(second, 'hosts')).toBe(`${BASE}10.0.0.2\tbox\n`)
  })

  test('is the host’s with host networking, or our own when there are extra hosts', () => {
    const hostsFile = join(root, 'host-hosts')
    writeFileSync(hostsFile, '127.0.0.1 localhost thehost\n')
    const plain = open({ hostsFile })
    plain.write('host', true)
    expect(read(plain, 'hosts')).toBe('127.0.0.1 localhost thehost\n')
    const extra = open({ hostsFile, directory: join(root, 'other'), extraHosts: ['db:10.0.0.1'] })
    extra.write('host', true)
    expect(read(extra, 'hosts')).toBe(`${BASE}10.0.0.1\tdb\n`)
  })

  test.each(['db', 'db:', 'db:nonsense', 'a b:10.0.0.1', 'up:host-gateway'])(
    'extra host %j is refused',
    text => {
      expect(() => open({ extraHosts: [text] })).toThrow(
        expect.objectContaining({ code: 'ERR_INVALID_OPTION' }),
      )
    },
  )
})

describe('resolv.conf', () => {
  const content = (
    over: Partial<FilesRequest>,
    host: string,
    kind: 'embedded' | 'legacy' | 'host',
    ipv6 = true,
  ) => {
    const files = open(over, host)
    files.write(kind, ipv6)
    return read(files, 'resolvConf')
  }
  const dns = (over: Partial<FilesRequest['dns']>) => ({
    dns: { servers: [], search: [], options: [], ...over },
  })

  test.each([
    [
      'names us, and asks every name as it is',
      {},
      HOST,
      'nameserver 127.0.0.11\nsearch corp.example\noptions edns0 trust-ad ndots:0\n',
    ],
    ['keeps ndots of the host', {}, 'options ndots:2\n', 'nameserver 127.0.0.11\noptions ndots:2\n'],
    [
      'has no use for a wrong ndots',
      {},
      'options ndots:x ndots ndots:-1 rotate\n',
      'nameserver 127.0.0.11\noptions rotate ndots:0\n',
    ],
    [
      'takes what the user says instead',
      dns({ servers: ['192.0.2.1'], search: ['a', 'b'], options: ['ndots:3'] }),
      HOST,
      'nameserver 127.0.0.11\nsearch a b\noptions ndots:3\n',
    ],
    [
      'has no search list when the user says so',
      dns({ search: ['.'] }),
      HOST,
      'nameserver 127.0.0.11\noptions edns0 trust-ad ndots:0\n',
    ],
    [
      'passes on what we do not know',
      {},
      'sortlist 10.0.0.0\ndomain x\nsearch y z # why\n; hm\nlookup file\n',
      'nameserver 127.0.0.11\nsearch y z\noptions ndots:0\nsortlist 10.0.0.0\nlookup file\n',
    ],
  ])('embedded: %s', (_, over, host, expected) => expect(content(over, host, 'embedded')).toBe(expected))

  test.each([
    [
      'is the host’s when a container can use it',
      {},
      '# by hand\nnameserver 192.0.2.1\n',
      '# by hand\nnameserver 192.0.2.1\n',
    ],
    [
      'leaves out the host’s loopback',
      {},
      HOST,
      'nameserver 192.0.2.53\nsearch corp.example\noptions edns0 trust-ad\n',
    ],
    [
      'names public servers when nothing is left',
      {},
      'nameserver 127.0.0.1\nnameserver ::1\n',
      'nameserver 8.8.8.8\nnameserver 8.8.4.4\nnameserver 2001:4860:4860::8888\nnameserver 2001:4860:4860::8844\n',
    ],
    [
      'also for an empty file',
      {},
      '',
      'nameserver 8.8.8.8\nnameserver 8.8.4.4\nnameserver 2001:4860:4860::8888\nnameserver 2001:4860:4860::8844\n',
    ],
    [
      'takes explicit servers as they are',
      dns({ servers: ['127.0.0.1'] }),
      HOST,
      'nameserver 127.0.0.1\nsearch corp.example\noptions edns0 trust-ad\n',
    ],
  ])('legacy: %s', (_, over, host, expected) => expect(content(over, host, 'legacy')).toBe(expected))

  test('legacy: leaves out IPv6 when the container has none', () =>
    expect(content({}, 'nameserver fd00::53\n', 'legacy', false)).toBe(
      'nameserver 8.8.8.8\nnameserver 8.8.4.4\n',
    ))

  test('host: is the host’s as it is', () => expect(content({}, `# x\n${HOST}`, 'host')).toBe(`# x\n${HOST}`))

  test('that somebody edited is theirs, also after a restart', () => {
    const files = open()
    files.write('legacy', true)
    appendFileSync(files.paths.resolvConf, 'options rotate\n')
    const edited = read(files, 'resolvConf')
    files.write('embedded', true)
    expect(read(files, 'resolvConf')).toBe(edited)
    const again = open()
    again.write('embedded', true)
    expect(read(again, 'resolvConf')).toBe(edited)
  })

  test('goes from one kind to the other in place', () => {
    const files = open()
    files.write('legacy', true)
    const { ino } = statSync(files.paths.resolvConf)
    files.write('embedded', true)
    expect(read(files, 'resolvConf')).toContain('127.0.0.11')
    files.write('legacy', true)
    expect(read(files, 'resolvConf')).not.toContain('127.0.0.11')
    expect(statSync(files.paths.resolvConf).ino).toBe(ino)
  })

  test('tells whom the embedded resolver asks', () => {
    const path = join(root, 'host-resolv.conf')
    writeFileSync(path, `nameserver 127.0.0.11\n${HOST}`)
    const followed = followUpstreams(path, () => undefined)
    const none = { servers: [], search: [], options: [] }
    const ofHost = [
      { address: '127.0.0.53', from: 'host' },
      { address: '192.0.2.53', from: 'host' },
    ]
    expect(followed.resolvedBy(none)).toEqual({
      upstreams: ofHost,
      search: ['corp.example'],
      ndotsFromUser: false,
    })
    expect(followed.resolvedBy({ ...none, servers: ['10.0.0.53'], options: ['ndots:1'] })).toEqual({
      upstreams: [{ address: '10.0.0.53', from: 'sandbox' }],
      search: ['corp.example'],
      ndotsFromUser: true,
    })
    const split = followed.resolvedBy({ ...none, servers: ['corp.test=10.0.0.53#5353'] }).upstreams
    expect(split).toEqual([
      { address: '10.0.0.53', port: 5353, domains: ['corp.test'], from: 'sandbox' },
      ...ofHost,
    ])
    followed.close()
  })

  test('addresses may carry a zone; what is no address is left out', () =>
    expect(parseResolvConf('nameserver fe80::1%eth0\nnameserver dns.example\nnameserver\n').servers).toEqual([
      'fe80::1%eth0',
    ]))
})

describe('the host’s resolv.conf', () => {
  test('is followed when it is written and when it is replaced', async () => {
    let changes = 0
    const files = open()
    files.write('embedded', true)
    const path = join(root, 'host-resolv.conf')
    const followed = followUpstreams(path, () => changes++)
    const none = { servers: [], search: [], options: [] }
    const servers = () => followed.resolvedBy(none).upstreams.map(({ address }) => address)
    writeFileSync(path, 'nameserver 192.0.2.99\noptions rotate\n')
    await until(() => servers().join() === '192.0.2.99')
    await until(() => read(files, 'resolvConf') === 'nameserver 127.0.0.11\noptions rotate ndots:0\n')
    for (const address of ['192.0.2.98', '192.0.2.97']) {
      writeFileSync(`${path}.new`, `nameserver ${address}\n`)
      renameSync(`${path}.new`, path)
      await until(() => servers().join() === address)
    }
    rmSync(path)
    await until(() => servers().length === 0)
    expect(changes).toBeGreaterThanOrEqual(4)
    followed.close()
  })

  test('is followed through a link, and when the link is turned elsewhere', async () => {
    for (const name of ['a', 'b']) {
      mkdirSync(join(root, name))
      writeFileSync(join(root, name, 'conf'), `nameserver 192.0.2.1\n# ${name}\n`)
    }
    const path = join(root, 'link')
    symlinkSync(join(root, 'a', 'conf'), path)
    const conf = hostResolvConf(path, join(root, 'none', 'resolv.conf'))
    const stop = conf.follow(() => undefined)
    writeFileSync(join(root, 'a', 'conf'), 'nameserver 192.0.2.2\n')
    await until(() => conf.text === 'nameserver 192.0.2.2\n')
    symlinkSync(join(root, 'b', 'conf'), `${path}.new`)
    renameSync(`${path}.new`, path)
    await until(() => conf.text.includes('# b'))
    writeFileSync(join(root, 'b', 'conf'), 'nameserver 192.0.2.3\n')
    await until(() => conf.text === 'nameserver 192.0.2.3\n')
    stop()
  })

  test('with the stub of systemd-resolved stands for the servers behind it', () => {
    const path = join(root, 'stub')
    const behind = join(root, 'behind')
    writeFileSync(path, 'nameserver 127.0.0.53\noptions edns0\n')
    expect(hostResolvConf(path, behind).text).toContain('127.0.0.53') // nothing behind
    writeFileSync(behind, 'nameserver 192.0.2.1\n')
    expect(hostResolvConf(path, behind).text).toBe('nameserver 192.0.2.1\n')
    writeFileSync(path, 'nameserver 127.0.0.53\nnameserver 192.0.2.7\n')
    expect(hostResolvConf(path, behind).text).toContain('192.0.2.7')
  })
})

describe('a link', () => {
  const link = {
    alias: 'tomcat02',
    parent: 'tomcat03',
    target: {
      name: 'tomcat02',
      hostname: 'c294a750a97d',
      address: '172.17.0.2',
      ports: [{ port: 8080, protocol: 'tcp' }],
      environment: [
        'PATH=/bin',
        'HOME=/root',
        'JAVA_HOME=/opt/java/openjdk',
        'LANG=en_US.UTF-8',
        'EMPTY=',
        'odd',
      ],
    },
  }

  test('gives the variables that Docker gives', () => {
    expect(linkEnvironment(link)).toEqual([
      'TOMCAT02_PORT=tcp://172.17.0.2:8080',
      'TOMCAT02_PORT_8080_TCP=tcp://172.17.0.2:8080',
      'TOMCAT02_PORT_8080_TCP_ADDR=172.17.0.2',
      'TOMCAT02_PORT_8080_TCP_PORT=8080',
      'TOMCAT02_PORT_8080_TCP_PROTO=tcp',
      'TOMCAT02_NAME=/tomcat03/tomcat02',
      'TOMCAT02_ENV_JAVA_HOME=/opt/java/openjdk',
      'TOMCAT02_ENV_LANG=en_US.UTF-8',
      'TOMCAT02_ENV_EMPTY=',
    ])
  })

  test('the lowest port is the link’s own, TCP before UDP; dashes become underscores', () => {
    const ports = [
      { port: 9000, protocol: 'tcp' },
      { port: 53, protocol: 'udp' },
      { port: 53, protocol: 'tcp' },
    ]
    const variables = linkEnvironment({
      ...link,
      alias: 'my-db',
      target: { ...link.target, ports, environment: [] },
    })
    expect(variables[0]).toBe('MY_DB_PORT=tcp://172.17.0.2:53')
    expect(variables.filter(each => /^MY_DB_PORT_\d+_(TCP|UDP)=/.test(each))).toEqual([
      'MY_DB_PORT_53_TCP=tcp://172.17.0.2:53',
      'MY_DB_PORT_53_UDP=udp://172.17.0.2:53',
      'MY_DB_PORT_9000_TCP=tcp://172.17.0.2:9000',
    ])
    expect(linkEnvironment({ ...link, target: { ...link.target, ports: [] } })[0]).toBe(
      'TOMCAT02_NAME=/tomcat03/tomcat02',
    )
  })

  test('gives the line of hosts: alias, host name, and the name if it is another', () => {
    expect(linkHosts(link)).toEqual({ address: '172.17.0.2', names: ['tomcat02', 'c294a750a97d'] })
    expect(linkHosts({ ...link, alias: 'db' }).names).toEqual(['db', 'c294a750a97d', 'tomcat02'])
  })
})
