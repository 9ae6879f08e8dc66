/** firewalld as it answers on a bus, played by a server on a socket. */
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SILENT } from '../../../lib/base/log'
import { Dbus } from '../../../lib/firewall/dbus/bus'
import {
  DbusReader,
  type DbusMessage,
  DbusWriter,
  decodeMessage,
  encodeMessage,
  ERROR,
  ERROR_NAME,
  INTERFACE,
  MEMBER,
  PATH,
  REPLY_SERIAL,
  RETURN,
  SIGNAL,
  splitSignature,
  type Value,
  type Variant,
} from '../../../lib/firewall/dbus/message'
import { Firewalld } from '../../../lib/firewall/firewalld'

const NAME = 'org.fedoraproject.FirewallD1'

class FakeBus {
  readonly directory = mkdtempSync(join(tmpdir(), 'bus-'))
  readonly path = join(this.directory, 'socket')
  readonly calls: string[] = []
  readonly permanent = new Map<string, Map<string, Variant>>()
  readonly policies = new Map<string, Map<string, Variant>>()
  /** Zones in effect and the interfaces in them. */
  readonly zones = new Map<string, Set<string>>([['public', new Set(['br-wild'])]])
  runs = true
  policiesKnown = true
  refuse: string | undefined
  private readonly server: Server
  private readonly sockets = new Set<Socket>()
  private serial = 0

  constructor() {
    this.server = createServer(socket => this.serve(socket))
  }

  listen(): Promise<void> {
    return new Promise(resolve => this.server.listen(this.path, resolve))
  }

  async close(): Promise<void> {
    for (const socket of this.sockets) socket.destroy()
    await new Promise(resolve => this.server.close(resolve))
    rmSync(this.directory, { recursive: true, force: true })
  }

  reload(): void {
    for (const zone of this.permanent.keys()) if (!this.zones.has(zone)) this.zones.set(zone, new Set())
    for (const links of this.zones.values()) links.clear()
    this.signal(NAME, 'Reloaded', '', [])
  }

  signal(face: string, member: string, signature: string, body: Value[]): void {
    const message = encodeMessage(
      SIGNAL,
      ++this.serial,
      [
        [PATH, 'o', '/x'],
        [INTERFACE, 's', face],
        [MEMBER, 's', member],
      ],
      signature,
      body,
    )
    for (const socket of this.sockets) socket.write(message)
  }

  private serve(socket: Socket): void {
    this.sockets.add(socket)
    socket.on('error', () => {})
    socket.on('close', () => this.sockets.delete(socket))
    let received = Buffer.alloc(0)
    let begun = false
    socket.on('data', data => {
      received = Buffer.concat([received, data])
      if (!begun) {
        const text = received.toString('latin1')
        if (text.startsWith('\0AUTH EXTERNAL ') && !text.includes('BEGIN'))
          socket.write('OK 0123456789abcdef\r\n')
        const at = text.indexOf('BEGIN\r\n')
        if (at < 0) return
        begun = true
        received = received.subarray(at + 7)
      }
      for (;;) {
        const found = decodeMessage(received)
        if (!found) return
        received = received.subarray(found.length)
        this.answer(socket, found.message)
      }
    })
  }

  private answer(socket: Socket, { serial, fields, body }: DbusMessage): void {
    const member = String(fields.get(MEMBER))
    this.calls.push([member, ...body.filter(value => typeof value === 'string')].join(' '))
    const reply = (signature: string, values: Value[]) =>
      socket.write(encodeMessage(RETURN, ++this.serial, [[REPLY_SERIAL, 'u', serial]], signature, values))
    const fail = (name: string, text: string) =>
      socket.write(
        encodeMessage(
          ERROR,
          ++this.serial,
          [
            [REPLY_SERIAL, 'u', serial],
            [ERROR_NAME, 's', name],
          ],
          's',
          [text],
        ),
      )
    if (member === this.refuse) return void fail(`${NAME}.Exception`, 'ACCESS_DENIED')
    const [first, second] = body as [string, string]
    switch (member) {
      case 'Hello':
        return void reply('s', [':1.7'])
      case 'NameHasOwner':
        return void reply('b', [this.runs])
      case 'getZones':
        return void reply('as', [[...this.zones.keys()]])
      case 'addZone2':
        this.permanent.set(first, body[1] as unknown as Map<string, Variant>)
        return void reply('o', ['/zone/1'])
      case 'addPolicy':
        if (!this.policiesKnown)
          return void fail('org.freedesktop.DBus.Error.UnknownMethod', 'no such method')
        this.policies.set(first, body[1] as unknown as Map<string, Variant>)
        return void reply('o', ['/policy/1'])
      case 'reload':
        this.reload()
        return void reply('', [])
      case 'changeZoneOfInterface':
        if (this.zones.get(first)?.has(second))
          return void fail(`${NAME}.Exception`, 'ZONE_ALREADY_SET: it is there')
        for (const links of this.zones.values()) links.delete(second)
        this.zones.get(first)?.add(second)
        return void reply('s', [first])
      case 'removeInterface':
        this.zones.get(first)?.delete(second)
        return void reply('s', [first])
      default:
        return void reply('', [])
    }
  }
}

let bus: FakeBus
let firewalld: Firewalld
let reloads = 0
const warnings: string[] = []
const log = { ...SILENT, warn: (message: string) => void warnings.push(message) }
const until = async (condition: () => boolean) => {
  for (let i = 0; i < 1000 && !condition(); i++) await new Promise(resolve => setTimeout(resolve, 5))
  expect(condition()).toBe(true)
}
const members = (zone: string) => [...(bus.zones.get(zone) ?? [])].sort()

beforeEach(async () => {
  bus = new FakeBus()
  await bus.listen()
  reloads = 0
  warnings.length = 0
  firewalld = new Firewalld('libcnm', bus.path, log, () => void reloads++)
})
afterEach(async () => {
  firewalld.stop()
  await bus.close()
})

test('a zone and a policy are made once, and bridges are put into the zone and taken out', async () => {
  await firewalld.start()
  expect(firewalld.active).toBe(true)
  expect(bus.permanent.get('libcnm')?.get('target')).toEqual({ signature: 's', value: 'ACCEPT' })
  expect(bus.policies.get('libcnm-fwd')?.get('ingress_zones')).toEqual({ signature: 'as', value: ['ANY'] })
  expect(bus.policies.get('libcnm-fwd')?.get('egress_zones')).toEqual({ signature: 'as', value: ['libcnm'] })
  await firewalld.sync(['br1', 'br-wild'])
  expect(members('libcnm')).toEqual(['br-wild', 'br1'])
  expect(members('public')).toEqual([])
  await firewalld.sync(['br1'])
  expect(members('libcnm')).toEqual(['br1'])
  await firewalld.sync([])
  expect(members('libcnm')).toEqual([])
  expect(bus.calls.filter(call => call.startsWith('addZone2'))).toHaveLength(1)
  expect(warnings).toEqual([])
})

test('after a reload the bridges are back in their zone, and the firewall is told to look', async () => {
  await firewalld.start()
  await firewalld.sync(['br1', 'br2'])
  await until(() => reloads === 1)
  bus.reload()
  expect(members('libcnm')).toEqual([])
  await until(() => reloads === 2)
  expect(members('libcnm')).toEqual(['br1', 'br2'])
  expect(bus.calls.filter(call => call.startsWith('addZone2'))).toHaveLength(1)
})

test('a firewalld that starts later is noticed, and one that ends', async () => {
  bus.runs = false
  await firewalld.start()
  await firewalld.sync(['br1'])
  expect(firewalld.active).toBe(false)
  bus.signal('org.freedesktop.DBus', 'NameOwnerChanged', 'sss', [NAME, '', ':1.9'])
  await until(() => members('libcnm').includes('br1'))
  expect(firewalld.active).toBe(true)
  expect(['firewalld', 'firewalld_policy_drop', 'filter'].map(table => firewalld.minds(table))).toEqual([
    true,
    true,
    false,
  ])
  // Its start, and the reload that the new zone takes.
  await until(() => reloads === 2)
  bus.signal('org.freedesktop.DBus', 'NameOwnerChanged', 'sss', [NAME, ':1.9', ''])
  await until(() => !firewalld.active)
  // What it may have left behind is nobody's now: it is looked at.
  expect(firewalld.minds('firewalld')).toBe(false)
  expect(reloads).toBe(3)
})

test('an old firewalld has no policies and needs none', async () => {
  bus.policiesKnown = false
  await firewalld.start()
  expect(firewalld.active).toBe(true)
  expect(warnings).toEqual([])
})

test('a refusal is told and stops nothing', async () => {
  bus.refuse = 'changeZoneOfInterface'
  await firewalld.start()
  await firewalld.sync(['br1'])
  expect(warnings.length).toBeGreaterThan(0)
  expect(firewalld.minds('firewalld')).toBe(false)
  bus.refuse = undefined
  await firewalld.sync(['br1'])
  expect(firewalld.minds('firewalld')).toBe(true)
  expect(members('libcnm')).toEqual(['br1'])
})

test('no bus: nothing happens', async () => {
  const alone = new Firewalld('libcnm', join(bus.directory, 'nowhere'), log, () => {})
  await alone.start()
  await alone.sync(['br1'])
  expect(alone.active).toBe(false)
  alone.stop()
})

test('calls that nobody answers end when the bus does', async () => {
  const one = await Dbus.connect(
    bus.path,
    () => {},
    () => {},
  )
  const call = one.call('a.b', '/a', 'a.b', 'Hello')
  one.close()
  await expect(call).rejects.toThrow(/closed/)
})

describe('the wire', () => {
  test('signatures fall into complete types', () => {
    expect(splitSignature('sa{sv}a(ss)u(i(as)b)v')).toEqual(['s', 'a{sv}', 'a(ss)', 'u', '(i(as)b)', 'v'])
  })

  test('what is written is read again', () => {
    const values: [string, Value][] = [
      ['s', 'grüße'],
      ['as', ['a', '', 'ccc']],
      [
        'a{sv}',
        new Map<string, Value>([
          ['x', { signature: 's', value: 'y' }],
          ['z', { signature: 'as', value: ['1', '2'] }],
        ]),
      ],
      ['(sub)', ['s', 7, true]],
      [
        'a(ss)',
        [
          ['a', 'b'],
          ['c', 'd'],
        ],
      ],
      ['ay', [1, 2, 3]],
      ['i', -5],
      ['g', 'a{sv}'],
    ]
    const writer = new DbusWriter()
    for (const [type, value] of values) writer.write(type, value)
    const reader = new DbusReader(writer.take())
    for (const [type, value] of values) expect(reader.read(type)).toEqual(value)
  })

  test('a message is read only when it is complete', () => {
    const message = encodeMessage(RETURN, 9, [[REPLY_SERIAL, 'u', 5]], 'as', [['a', 'b']])
    for (let length = 0; length < message.length; length++)
      expect(decodeMessage(message.subarray(0, length))).toBeUndefined()
    expect(decodeMessage(message)?.message.body).toEqual([['a', 'b']])
  })
})
