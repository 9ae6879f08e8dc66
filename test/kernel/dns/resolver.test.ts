import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { SandboxResolver } from '../../../lib/dns/contract'
import { redirectRules } from '../../../lib/dns/redirect'
import { redirectBatch } from '../../../lib/dns/redirect-batch'
import { openNames, openResolver } from '../../../lib/dns/resolver'
import type { KernelEvent, Stack } from '../../../lib/kernel/kernel'
import { Scene, view } from './scene'

const RESOLV_CONF = 'nameserver 127.0.0.11\noptions ndots:0\n'

function someNames() {
  const names = openNames()
  names.setNetwork('net1', { name: 'shop', internal: false, serves: true })
  names.setEndpoint({
    endpointId: 'e1',
    networkId: 'net1',
    networkName: 'shop',
    names: ['web', 'www', '0123456789ab'],
    ipv4: '10.9.0.2',
    ipv6: 'fd00:9::2',
  })
  names.setEndpoint({
    endpointId: 'e2',
    networkId: 'net1',
    networkName: 'shop',
    names: ['db', 'www'],
    ipv4: '10.9.0.3',
  })
  return names
}

describe('real clients inside a sandbox', () => {
  let scene: Scene
  let stack: Stack
  let path: string
  let resolver: SandboxResolver
  const names = someNames()

  beforeAll(async () => {
    scene = await Scene.open()
    ;({ stack, path } = await scene.sandbox('box', 71))
    resolver = await openResolver({ names, stack, host: scene.host, view: view({ links: { mysql: 'db' } }) })
  })
  afterAll(async () => {
    await resolver?.close()
    await scene?.close()
  })

  const dig = (...args: string[]) => scene.run(path, 'dig', '+short', '@127.0.0.11', ...args)

  test('dig, by UDP and by TCP', async () => {
    expect(await dig('web')).toBe('10.9.0.2\n')
    expect(await dig('+tcp', 'WEB.shop', 'AAAA')).toBe('fd00:9::2\n')
    expect((await dig('www')).split('\n').sort().join(' ').trim()).toBe('10.9.0.2 10.9.0.3')
    expect(await dig('mysql')).toBe('10.9.0.3\n')
    expect(await dig('-x', '10.9.0.2')).toBe('web.shop.\n')
    expect(await dig('-x', 'fd00:9::2')).toBe('web.shop.\n')
    expect(await dig('db', 'AAAA')).toBe('')
    const whole = await scene.run(path, 'dig', '@127.0.0.11', 'web', '+noedns')
    expect(whole).toMatch(/status: NOERROR/)
    expect(whole).toMatch(/flags: qr rd ra;/)
    expect(whole).toMatch(/SERVER: 127\.0\.0\.11#53/)
    expect(whole).not.toMatch(/WARNING|malformed|mismatch/i)
  })

  test('dig finds nothing to complain about in any answer', async () => {
    for (const options of [['+edns'], ['+dnssec'], ['+tcp'], ['+bufsize=512'], ['+cookie'], ['+noedns']])
      for (const type of ['A', 'AAAA', 'ANY', 'TXT', 'SRV', 'HTTPS']) {
        const said = await scene.run(path, 'dig', '@127.0.0.11', 'web', type, ...options)
        expect(said).toMatch(/status: NOERROR/)
        expect(said).not.toMatch(/WARNING|malformed|mismatch|extra bytes/i)
      }
  })

  test('getent (glibc), with a resolv.conf that names us', async () => {
    const getent = (...args: string[]) => scene.runWithResolvConf(path, RESOLV_CONF, 'getent', ...args)
    expect(await getent('ahostsv4', 'db')).toMatch(/^10\.9\.0\.3\s+STREAM db/)
    expect(await getent('ahostsv6', 'web')).toMatch(/^fd00:9::2\s+STREAM web/)
    expect(await getent('hosts', '10.9.0.2')).toMatch(/^10\.9\.0\.2\s+web\.shop/)
    expect(await getent('ahosts', 'nobody')).toBe('')
  })

  test('busybox nslookup', async () => {
    const said = await scene.run(path, 'busybox', 'nslookup', 'web', '127.0.0.11')
    expect(said).toMatch(/Server:\s+127\.0\.0\.11/)
    expect(said).toMatch(/Name:\s+web\s+Address:\s+10\.9\.0\.2/)
    expect(said).toMatch(/Address:\s+fd00:9::2/)
  })

  test('Node’s dns', async () => {
    const script = `const { Resolver } = require('dns').promises
      const r = new Resolver(); r.setServers(['127.0.0.11'])
      Promise.all([r.resolve4('db'), r.resolve6('web'), r.reverse('10.9.0.3'), r.resolveMx('web').catch(e => e.code)])
        .then(found => console.log(JSON.stringify(found)))`
    expect(JSON.parse(await scene.run(path, process.execPath, '-e', script))).toEqual([
      ['10.9.0.3'],
      ['fd00:9::2'],
      ['db.shop'],
      'ENODATA',
    ])
  })

  test('see a change with the very next question', async () => {
    names.setEndpoint({
      endpointId: 'e3',
      networkId: 'net1',
      networkName: 'shop',
      names: ['new'],
      ipv4: '10.9.0.4',
    })
    expect(await dig('new')).toBe('10.9.0.4\n')
    names.removeEndpoint('net1', 'e3')
    expect(await scene.run(path, 'dig', '@127.0.0.11', 'new')).toMatch(/status: SERVFAIL/)
  })

  test('are not disturbed by a container’s own server on every address, port 53', async () => {
    const script = `const udp = require('dgram').createSocket('udp4')
      udp.bind(53, '0.0.0.0', () => require('net').createServer().listen(53, '0.0.0.0', () => console.log('bound')))
      udp.on('message', (m, from) => udp.send('mine', from.port, from.address))`
    await scene.start(path, /bound/, process.execPath, '-e', script)
    expect(await dig('web')).toBe('10.9.0.2\n')
    expect(await dig('+tcp', 'web')).toBe('10.9.0.2\n')
  })

  test('are not disturbed by a firewall inside that lets out new connections to port 53 only', async () => {
    stack.nft(`table ip strict {
      chain input { type filter hook input priority filter; policy drop; iif lo accept; }
      chain output { type filter hook output priority filter; policy drop;
        ct state established accept
        udp dport 53 accept
        tcp dport 53 accept
      }
    }`)
    expect(await dig('+tries=1', '+timeout=2', 'web')).toBe('10.9.0.2\n')
    expect(await dig('+tries=1', '+timeout=2', '+tcp', 'web')).toBe('10.9.0.2\n')
    stack.nft('delete table ip strict')
  })

  test('need no connection tracking for it', () => {
    expect(stack.nft('list ruleset')).not.toMatch(/nat|masquerade|redirect/)
  })
})

describe('the life of a resolver', () => {
  let scene: Scene
  beforeAll(async () => {
    scene = await Scene.open()
  })
  afterAll(() => scene?.close())

  const open = async (stack: Stack, mode?: 'direct' | 'redirect') =>
    openResolver({ names: someNames(), stack, host: scene.host, view: view(), mode })

  test('closed, it leaves nothing in the sandbox, and can be opened again there or elsewhere', async () => {
    const one = await scene.sandbox('one', 72)
    const two = await scene.sandbox('two', 73)
    for (const { stack, path } of [one, two, one]) {
      const resolver = await open(stack)
      expect(await scene.run(path, 'dig', '+short', '@127.0.0.11', 'db')).toBe('10.9.0.3\n')
      await resolver.close()
      await resolver.close()
      expect(stack.nft('list ruleset')).toBe('')
      expect(await scene.run(path, 'dig', '+tries=1', '+timeout=1', '@127.0.0.11', 'db')).toMatch(
        /refused|no servers/,
      )
    }
  })

  test('the rules are the same as text and as messages', async () => {
    const one = await scene.sandbox('text', 77)
    const two = await scene.sandbox('messages', 78)
    const ports = { udp: 40_001, tcp: 40_002 }
    one.stack.nft(redirectRules(ports))
    two.stack.nftBatch?.(redirectBatch(ports))
    const rules = two.stack.nft('list ruleset')
    expect(rules).toContain('udp dport set 40001')
    expect(rules).toBe(one.stack.nft('list ruleset'))
    expect(() => two.stack.nftBatch?.(redirectBatch(ports))).toThrow(
      expect.objectContaining({ code: 'ERR_FIREWALL', details: { errno: 'EEXIST' } }),
    )
    expect(two.stack.nft('list ruleset')).toBe(rules)
  })

  test('one opened again over rules that were left takes over', async () => {
    const { stack, path } = await scene.sandbox('again', 74)
    const first = await open(stack)
    await first.close({ keepRules: true })
    const second = await open(stack)
    expect(await scene.run(path, 'dig', '+short', '@127.0.0.11', 'db')).toBe('10.9.0.3\n')
    expect(stack.nft('list ruleset').match(/dport set/g)).toHaveLength(2)
    await second.close()
  })

  describe('after a restart', () => {
    const portsOf = (stack: Stack) => stack.nft('list ruleset').match(/dport set \d+/g)
    let harmed: ReturnType<Scene['sandbox']> | undefined
    const again = (stack: Stack) =>
      openResolver({ names: someNames(), stack, host: scene.host, view: view(), inherit: true })

    test('the ports are taken again, and no rule is touched', async () => {
      const { stack, path } = await scene.sandbox('same', 79)
      await (await open(stack)).close({ keepRules: true })
      const ports = portsOf(stack)
      const events: KernelEvent[] = []
      const watch = stack.watch(['nft'], event => events.push(event))
      const resolver = await again(stack)
      expect(await scene.run(path, 'dig', '+short', '@127.0.0.11', 'db')).toBe('10.9.0.3\n')
      expect(await scene.run(path, 'dig', '+short', '+tcp', '@127.0.0.11', 'db')).toBe('10.9.0.3\n')
      expect(portsOf(stack)).toEqual(ports)
      expect(events).toEqual([])
      watch.close()
      await resolver.close()
      expect(stack.nft('list ruleset')).toBe('')
    })

    test.each([
      ['are gone', 'delete table ip libcnm-dns'],
      ['were emptied', 'flush table ip libcnm-dns'],
      ['lost one', 'flush chain ip libcnm-dns back'],
      ['got one more', 'add rule ip libcnm-dns back drop'],
      [
        'were altered',
        'flush chain ip libcnm-dns back; add rule ip libcnm-dns back ip saddr 127.0.0.12 udp sport 7 udp sport set 53',
      ],
    ])('rules that %s are made anew', async (_, harm) => {
      harmed ??= scene.sandbox('harmed', 80)
      const { stack, path } = await harmed
      await (await open(stack)).close({ keepRules: true })
      const whole = stack.nft('list ruleset').replace(/\d{4,}/g, 'PORT')
      stack.nft(harm)
      const resolver = await again(stack)
      expect(await scene.run(path, 'dig', '+short', '@127.0.0.11', 'db')).toBe('10.9.0.3\n')
      expect(await scene.run(path, 'dig', '+short', '+tcp', '@127.0.0.11', 'db')).toBe('10.9.0.3\n')
      expect(stack.nft('list ruleset').replace(/\d{4,}/g, 'PORT')).toBe(whole)
      await resolver.close()
    })

    test('when somebody else has a port by now, others are chosen', async () => {
      const { stack, path } = await scene.sandbox('taken', 81)
      await (await open(stack)).close({ keepRules: true })
      const ports = portsOf(stack)
      const [port = 0] = (ports ?? []).map(text => Number(text.replace(/\D+/, '')))
      const fd = stack.openSocket({ type: 'udp', address: '127.0.0.11', port })
      const resolver = await again(stack)
      expect(portsOf(stack)).not.toEqual(ports)
      expect(await scene.run(path, 'dig', '+short', '@127.0.0.11', 'db')).toBe('10.9.0.3\n')
      stack.closeFd(fd)
      await resolver.close()
    })
  })

  test('direct, it needs no rules; a port that is taken is an error that says so, and leaves nothing', async () => {
    const { stack, path } = await scene.sandbox('direct', 75)
    const resolver = await open(stack, 'direct')
    expect(stack.nft('list ruleset')).toBe('')
    expect(await scene.run(path, 'dig', '+short', '@127.0.0.11', 'db')).toBe('10.9.0.3\n')
    await expect(open(stack, 'direct')).rejects.toMatchObject({
      code: 'ERR_NAMES',
      message: expect.stringContaining('s1'),
    })
    await resolver.close()
    await (await open(stack, 'direct')).close()
  })
})

describe('unfriendly TCP clients', () => {
  let scene: Scene
  let stack: Stack
  let path: string
  let resolver: SandboxResolver
  beforeAll(async () => {
    scene = await Scene.open()
    ;({ stack, path } = await scene.sandbox('tcp', 76))
    resolver = await openResolver({
      names: someNames(),
      stack,
      host: scene.host,
      view: view(),
      mode: 'direct',
    })
  })
  afterAll(async () => {
    await resolver?.close()
    await scene?.close()
  })

  /** Runs a script with `connect(onConnected)` inside. */
  const inside = async (body: string): Promise<string> => {
    const file = join(scene.directory, 'client.js')
    await writeFile(
      file,
      `const net = require('net')
      const question = Buffer.from('0019' + '1234' + '0100' + '0001000000000000' + '03776562' + '0473686f7000' + '00010001', 'hex')
      question.writeUInt16BE(question.length - 2, 0)
      const connect = () => new Promise(resolve => {
        const socket = net.connect(53, '127.0.0.11', () => resolve(socket))
        socket.on('error', () => {})
      })
      const answer = socket => new Promise(resolve => {
        socket.once('data', data => resolve(data.toString('hex')))
        socket.once('close', () => resolve('closed'))
      })
      ;(async () => { ${body} })().then(said => { console.log(said); process.exit() })`,
    )
    return (await scene.run(path, process.execPath, file)).trim()
  }
  const ANSWER = /0a090002$/

  test('a thousand idle connections do not keep others from being answered', async () => {
    const said = await inside(`
      const idle = []
      for (let i = 0; i < 1000; i++) idle.push(await connect())
      const socket = await connect()
      socket.write(question)
      return answer(socket)`)
    expect(said).toMatch(ANSWER)
    expect(resolver.statistics().inFlight).toBe(0)
  })

  test('a question byte by byte, and several at once', async () => {
    const said = await inside(`
      const socket = await connect()
      socket.setNoDelay()
      for (const byte of question) { socket.write(Buffer.from([byte])); await new Promise(r => setTimeout(r, 2)) }
      const one = await answer(socket)
      socket.write(Buffer.concat([question, question, question]))
      let rest = ''
      while (rest.length < one.length * 3) rest += await answer(socket)
      return String(rest === one.repeat(3)) + one`)
    expect(said).toMatch(/^true/)
    expect(said).toMatch(ANSWER)
  })

  test.each([
    ['nonsense', "Buffer.from('GET / HTTP/1.1\\r\\n\\r\\n')"],
    ['a length larger than any question', "Buffer.from('ffff00', 'hex')"],
    ['a message that is no question', "Buffer.from('0003010203', 'hex')"],
    ['an answer', '(() => { const q = Buffer.from(question); q[4] |= 0x80; return q })()'],
  ])('%s: the connection is closed', async (_, bytes) => {
    expect(
      await inside(`const socket = await connect(); socket.write(${bytes}); return answer(socket)`),
    ).toBe('closed')
  })

  test('one that closes its side after the question still gets the answer', async () => {
    expect(
      await inside('const socket = await connect(); socket.end(question); return answer(socket)'),
    ).toMatch(ANSWER)
  })

  test('one that asks and never reads is cut off', async () => {
    const said = await inside(`
      const socket = await connect()
      socket.pause()
      const many = Buffer.concat(Array(2000).fill(question))
      let open = true
      let go = () => undefined
      socket.on('drain', () => go())
      socket.on('close', () => { open = false; go() })
      for (let i = 0; open && i < 3000; i++) {
        if (!socket.write(many)) await new Promise(resolve => { go = resolve; setTimeout(resolve, 500) })
      }
      return String(open)`)
    expect(said).toBe('false')
    expect(await scene.run(path, 'dig', '+short', '@127.0.0.11', 'db')).toBe('10.9.0.3\n')
  })

  test('random bytes by UDP and TCP: it goes on answering', async () => {
    await inside(`
      const crypto = require('crypto')
      const udp = require('dgram').createSocket('udp4')
      for (let i = 0; i < 2000; i++) {
        const bytes = i % 2 ? crypto.randomBytes(i % 600) : Buffer.from(question.subarray(2))
        if (i % 2 === 0) bytes[crypto.randomInt(bytes.length)] = crypto.randomInt(256)
        await new Promise(resolve => udp.send(bytes, 53, '127.0.0.11', resolve))
      }
      for (let i = 0; i < 50; i++) { const socket = await connect(); socket.end(crypto.randomBytes(700)); await answer(socket) }
      return 'done'`)
    expect(await scene.run(path, 'dig', '+short', '@127.0.0.11', 'db')).toBe('10.9.0.3\n')
    const { malformed, inFlight } = resolver.statistics()
    expect(malformed).toBeGreaterThan(100)
    expect(inFlight).toBe(0)
  })
})
