/**
 * A change of the rules as the kernel's messages, for stacks that take them ready: the same as `renderChange` says, at a fraction
 * of the cost; and where many sandboxes go from one state to another, it is laid out once for all. Pure.
 */
import { ipBytes, type Family } from '../base/cidr'
import {
  acknowledged,
  attribute,
  BASE,
  change,
  data,
  equals,
  expression,
  load,
  MESSAGE,
  META,
  meta,
  native32,
  nested,
  NFPROTO,
  NLM_F_APPEND,
  NLM_F_CREATE,
  numbers,
  REGISTER,
  text,
  u16,
} from '../base/nft-messages'
import type { ServiceProtocol } from './contract'
import { difference, type Rules, SEED, SERVICES_TABLE, type Target } from './rules'

const PROTOCOL: Record<ServiceProtocol, number> = { tcp: 6, udp: 17, sctp: 132 }
/** nft's own numbers of types: what a listing prints goes by them. A concatenation has six bits for each. */
const TYPE = { integer: 4, service: 13, address: { 4: 7, 6: 8 } }
/** NFT_SET_ANONYMOUS, NFT_SET_CONSTANT, NFT_SET_MAP */
const ANONYMOUS_MAP = 0x1 | 0x2 | 0x8
const NAME = '__map%d'
const GOTO = -4
const FAMILY = { 4: NFPROTO.ipv4, 6: NFPROTO.ipv6 }
const SOURCE = { 4: { offset: 12, length: 4 }, 6: { offset: 8, length: 16 } }
const SECOND = 2 // NFT_REG_2: the 16 bytes behind the first register
const FIFTH_BYTE = 9 // NFT_REG32_01: 4 bytes into the first

/** Elements of one message: an attribute has 64 KiB at most. */
const MOST = 1000

const ours = (type: number, flags: number, ...attributes: Buffer[]) =>
  change(NFPROTO.inet, type, flags, text(1, SERVICES_TABLE), ...attributes)

/** Undefined: they are alike, or differ in more than chains and elements (then the table is made anew). */
export function changeBatch(before: Rules, after: Rules): Buffer | undefined {
  if (before.entrance !== after.entrance) return undefined
  const { made, taken, given, dropped } = difference(before, after)
  const changes = [
    ...made.map(({ name, fresh }) =>
      fresh
        ? ours(MESSAGE.newChain, NLM_F_CREATE, text(3, name))
        : ours(MESSAGE.deleteRule, 0, text(2, name)),
    ),
    ...made.flatMap(({ name }, at) => rule(name, after.targets.get(name) as Target, at + 1)),
    ...taken.flatMap(({ set, keys }) =>
      parts(keys).map(part =>
        ours(
          MESSAGE.deleteElements,
          0,
          text(2, set),
          nested(3, ...part.map(key => nested(1, keyOf(set, key)))),
        ),
      ),
    ),
    ...given.flatMap(({ set, entries }) =>
      parts(entries).map(part =>
        ours(
          MESSAGE.newElements,
          NLM_F_CREATE,
          text(2, set),
          nested(3, ...part.map(([key, to]) => nested(1, keyOf(set, key), ...(to ? [leadTo(to)] : [])))),
        ),
      ),
    ),
    ...dropped.map(name => ours(MESSAGE.deleteChain, 0, text(3, name))),
  ]
  return changes.length ? acknowledged(changes) : undefined
}

const parts = <T>(list: readonly T[]): T[][] =>
  Array.from({ length: Math.ceil(list.length / MOST) }, (_, n) => list.slice(n * MOST, (n + 1) * MOST))

/** The rule of a chain, and the map that it looks into. `id`: of the map, in this transaction. */
function rule(chain: string, target: Target, id: number): Buffer[] {
  const { port, addresses } = target
  const tail = port === undefined ? NOTHING : Buffer.concat([u16(port), Buffer.alloc(2)])
  const values = new Map([...new Set(addresses)].map(each => [each, Buffer.concat([ipBytes(each), tail])]))
  const { set, expressions } = frameOf(target, id)
  return [
    set,
    ...parts(addresses).map((part, at) =>
      ours(
        MESSAGE.newElements,
        NLM_F_CREATE,
        text(2, NAME),
        numbers([4, id]),
        nested(
          3,
          elements(
            part.map(each => values.get(each) as Buffer),
            at * MOST,
          ),
        ),
      ),
    ),
    ours(MESSAGE.newRule, NLM_F_CREATE | NLM_F_APPEND, text(2, chain), expressions),
  ]
}

const NOTHING = Buffer.alloc(0)

/** Slot → value, of values of one length: laid out once, then only slot and value are written. */
function elements(values: Buffer[], first: number): Buffer {
  const one = nested(1, data(1, native32(0)), data(2, values[0] as Buffer))
  const out = Buffer.alloc(one.length * values.length)
  for (const [n, value] of values.entries()) {
    const at = n * one.length
    one.copy(out, at)
    native32(first + n).copy(out, at + SLOT_AT)
    value.copy(out, at + VALUE_AT)
  }
  return out
}
/** Behind the heads of element, key and value; behind these, the slot, and two heads more. */
const SLOT_AT = 12
const VALUE_AT = SLOT_AT + 4 + 8

interface Frame {
  set: Buffer
  expressions: Buffer
}

/** What of a rule and its map is alike for many services. */
const frames = new Map<string, Frame>()
/** Of these not without end. */
const MOST_FRAMES = 1000

function frameOf({ family, protocol, port, addresses, sticky }: Target, id: number): Frame {
  const key = [family, protocol, port === undefined, addresses.length, sticky, id].join()
  const known = frames.get(key)
  if (known) return known
  const made = {
    set: map(family, port !== undefined, addresses.length, id),
    expressions: nested(
      4,
      ...(protocol ? [meta(META.l4proto), equals(Buffer.from([PROTOCOL[protocol]]))] : []),
      ...(sticky ? hash(family, addresses.length) : [draw(addresses.length)]),
      expression(
        'lookup',
        Buffer.concat([numbers([2, REGISTER], [3, REGISTER]), text(1, NAME), numbers([4, id])]),
      ),
      expression(
        'nat',
        numbers(
          [1, 1], // NFT_NAT_DNAT
          [2, FAMILY[family]],
          [3, REGISTER],
          ...(port === undefined ? [] : [[5, family === 4 ? FIFTH_BYTE : SECOND] as [number, number]]),
        ),
      ),
    ),
  }
  if (frames.size >= MOST_FRAMES) frames.clear()
  frames.set(key, made)
  return made
}

/** The anonymous map of a rule, empty. */
function map(family: Family, withPort: boolean, size: number, id: number): Buffer {
  const address = TYPE.address[family]
  return ours(
    MESSAGE.newSet,
    NLM_F_CREATE,
    text(2, NAME),
    numbers(
      [3, ANONYMOUS_MAP],
      [4, TYPE.integer],
      [5, 4],
      [6, withPort ? (address << 6) | TYPE.service : address],
      [7, (family === 4 ? 4 : 16) + (withPort ? 4 : 0)],
      [10, id],
    ),
    nested(9, numbers([1, size])),
    // What nft notes for its listings: the order of bytes of keys (the host's), of values, and no intervals.
    attribute(
      13,
      Buffer.concat([
        Buffer.from([0, 4]),
        native32(1),
        Buffer.from([1, 4]),
        native32(withPort ? 0 : 2),
        Buffer.from([6, 4]),
        native32(0),
      ]),
    ),
  )
}

const draw = (size: number) => expression('numgen', numbers([1, REGISTER], [2, size], [3, 1], [4, 0]))

const hash = (family: Family, size: number): Buffer[] => [
  meta(META.nfproto),
  equals(Buffer.from([FAMILY[family]])),
  load(BASE.network, SOURCE[family].offset, SOURCE[family].length, SECOND),
  expression(
    'hash',
    numbers([1, SECOND], [2, REGISTER], [3, SOURCE[family].length], [4, size], [5, SEED], [6, 0], [7, 0]),
  ),
]

/** `10.0.0.9 . tcp . 80`, `tcp . 8080`, `10.0.0.9`: fields of a concatenation begin at multiples of four bytes. */
const keyOf = (set: string, key: string): Buffer => {
  const fields = key.split(' . ')
  const bytes = fields.map((field, at) => {
    if (Object.hasOwn(PROTOCOL, field)) return Buffer.from([PROTOCOL[field as ServiceProtocol], 0, 0, 0])
    if (at === 0 && !set.startsWith('published')) return ipBytes(field)
    return Buffer.concat([u16(Number(field)), Buffer.alloc(2)])
  })
  return data(1, Buffer.concat(bytes))
}

const leadTo = (chain: string): Buffer => nested(2, nested(2, numbers([1, GOTO]), text(2, chain)))
