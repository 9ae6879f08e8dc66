import type { Change, IpsecPolicy, IpsecState } from '../../../lib/kernel/kernel'
import { encodeChange, familyOfChange } from '../../../lib/kernel/netlink/changes'
import { decodeAll, Writer } from '../../../lib/kernel/netlink/message'
import type { Resolver } from '../../../lib/kernel/netlink/resolver'
import {
  decodePolicy,
  decodeState,
  encodeGetPolicies,
  encodeGetStates,
} from '../../../lib/kernel/netlink/xfrm'
import { hex } from './captured'
import { ANSWERS, REQUESTS } from './captured-xfrm'

const four: IpsecState = {
  source: '192.0.2.1',
  destination: '192.0.2.2',
  spi: 0x12345678,
  reqid: 13681891,
  key: '000102030405060708090a0b0c0d0e0f10111213',
}
const six: IpsecState = {
  ...four,
  source: '2001:db8::1',
  destination: '2001:db8::2',
  spi: 0x1234,
  reqid: 7,
}
const policyOf = ({ source, destination, spi, reqid }: IpsecState): IpsecPolicy => ({
  source,
  destination,
  spi,
  reqid,
  port: 4789,
  mark: 0xd0c4e3,
})

function encode(change: Change): Buffer {
  const writer = new Writer()
  encodeChange(writer, change, {} as Resolver)
  return writer.take()
}

const asked = (words: RegExp): string => {
  const [, text] = Object.entries(REQUESTS).find(([command]) => words.test(command)) ?? []
  return hex(text as string).toString('hex')
}

test.each<[RegExp, Change]>([
  [/state add src 192/, { op: 'addIpsecState', state: four }],
  [/state add src 2001/, { op: 'addIpsecState', state: six }],
  [/policy update src 192/, { op: 'setIpsecPolicy', policy: policyOf(four) }],
  [/policy update src 2001/, { op: 'setIpsecPolicy', policy: policyOf(six) }],
  [/policy delete src 192/, { op: 'removeIpsecPolicy', policy: policyOf(four) }],
  [/state delete src 192/, { op: 'removeIpsecState', state: four }],
])('as ip xfrm says it: %s', (words, change) => {
  expect(encode(change).toString('hex')).toBe(asked(words))
  expect(familyOfChange(change)).toBe('xfrm')
})

test('asking for all', () => {
  const writer = new Writer()
  encodeGetPolicies(writer)
  expect(writer.take().toString('hex')).toBe(asked(/policy list/))
  encodeGetStates(writer)
  expect(writer.take().toString('hex')).toBe('10000000120001030000000000000000')
})

test('what the kernel tells: states without their keys, policies', () => {
  const told = ({ key: _, ...state }: IpsecState) => ({ ...state, packets: 0 })
  expect(decodeAll(hex(ANSWERS['ip xfrm state list'] as string), decodeState)).toEqual([
    told(six),
    told(four),
  ])
  expect(decodeAll(hex(ANSWERS['ip xfrm policy list'] as string), decodePolicy)).toEqual([
    policyOf(six),
    policyOf(four),
  ])
})

test('what is cut off, or of another protocol, is left out', () => {
  const state = hex(ANSWERS['ip xfrm state list'] as string)
  expect(decodeAll(state.subarray(0, 200), decodeState)).toEqual([])
  state[16 + 56 + 20] = 51 // AH
  expect(decodeAll(state, decodeState)).toHaveLength(1)
})
