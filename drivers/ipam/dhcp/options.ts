/**
 * DHCP options as bytes: RFC 2132, long ones (RFC 3396), search lists (RFC 3397), classless routes (RFC 3442). Pure. What
 * makes no sense is left out, as if it had not been said: the rest of the message may still be good.
 */
import { ipText } from '../../../lib/base/cidr'
import type { AddressSettings } from '../../../lib/ipam/contract'

export const OPTION = {
  pad: 0,
  mask: 1,
  router: 3,
  servers: 6,
  hostname: 12,
  domain: 15,
  mtu: 26,
  requested: 50,
  leaseTime: 51,
  overload: 52,
  type: 53,
  server: 54,
  wishes: 55,
  message: 56,
  longest: 57,
  renewal: 58,
  rebinding: 59,
  clientId: 61,
  search: 119,
  classlessRoutes: 121,
  end: 255,
} as const

export type Options = ReadonlyMap<number, Buffer>

/** Bytes of the value of one option; longer values are told in several (RFC 3396). */
const FULL = 255
/** More than anybody has: what is beyond is left out. */
const MOST = 64
/** Bytes. RFC 2132, 5.1. */
const LEAST_MTU = 68

export function writeOptions(options: readonly (readonly [code: number, value: Uint8Array])[]): Buffer {
  const parts: Uint8Array[] = []
  for (const [code, value] of options)
    for (let at = 0; at === 0 || at < value.length; at += FULL) {
      const part = value.subarray(at, at + FULL)
      parts.push(Uint8Array.of(code, part.length), part)
    }
  return Buffer.concat([...parts, Uint8Array.of(OPTION.end)])
}

/** `file` and `sname` hold options too when option 52 says so. What runs over the end is left out. */
export function readOptions(bytes: Buffer, file: Buffer, sname: Buffer): Options {
  const found = new Map<number, Buffer>()
  readInto(found, bytes)
  const overload = found.get(OPTION.overload)
  const places = overload?.length === 1 ? (overload[0] as number) : 0
  if (places === 1 || places === 3) readInto(found, file)
  if (places === 2 || places === 3) readInto(found, sname)
  return found
}

function readInto(found: Map<number, Buffer>, bytes: Buffer): void {
  for (let at = 0; at < bytes.length; ) {
    const code = bytes[at++] as number
    if (code === OPTION.end) return
    if (code === OPTION.pad) continue
    const length = bytes[at++]
    if (length === undefined || at + length > bytes.length) return
    const value = bytes.subarray(at, at + length)
    const before = found.get(code)
    found.set(code, before ? Buffer.concat([before, value]) : value)
    at += length
  }
}

/** What an interface and its sandbox are told. Classless routes stand for the router too (RFC 3442). */
export function settingsOf(options: Options): AddressSettings {
  const settings: AddressSettings = {}
  const ways = classlessRoutes(options.get(OPTION.classlessRoutes))
  if (ways) {
    const gateway = ways.find(({ destination, gateway: by }) => destination === DEFAULT && by)?.gateway
    if (gateway) settings.gateway = gateway
    const routes = ways.filter(({ destination }) => destination !== DEFAULT)
    if (routes.length) settings.routes = routes
  } else {
    const [gateway] = addresses(options.get(OPTION.router))
    if (gateway) settings.gateway = gateway
  }
  const servers = addresses(options.get(OPTION.servers))
  const domain = options.get(OPTION.domain)?.toString('latin1').replace(/\0+$/, '')
  const search = searchList(options.get(OPTION.search)) ?? (domain && isDomain(domain) ? [domain] : [])
  if (servers.length || search.length) settings.dns = { servers, search }
  const mtu = options.get(OPTION.mtu)
  if (mtu?.length === 2 && mtu.readUInt16BE(0) >= LEAST_MTU) settings.mtu = mtu.readUInt16BE(0)
  return settings
}

const DEFAULT = '0.0.0.0/0'

function addresses(value: Buffer | undefined): string[] {
  if (!value || value.length % 4 !== 0) return []
  const found: string[] = []
  for (let at = 0; at < value.length && found.length < MOST; at += 4) {
    const text = ipText(value.subarray(at, at + 4))
    if (isUnicast(text) && !found.includes(text)) found.push(text)
  }
  return found
}

/** Not this network, loopback, multicast, reserved or broadcast. */
export function isUnicast(address: string): boolean {
  const first = Number(address.slice(0, address.indexOf('.')))
  return first !== 0 && first !== 127 && first < 224
}

/** RFC 3442: width, the significant bytes of the destination, router; router 0.0.0.0: on the link. Undefined: it is none. */
function classlessRoutes(value: Buffer | undefined): AddressSettings['routes'] {
  if (!value?.length) return undefined
  const routes: NonNullable<AddressSettings['routes']> = []
  for (let at = 0; at < value.length; ) {
    const width = value[at++] as number
    const significant = Math.ceil(width / 8)
    if (width > 32 || at + significant + 4 > value.length) return undefined
    const bytes = Buffer.alloc(4)
    value.copy(bytes, 0, at, at + significant)
    const mask = width === 0 ? 0 : (0xffffffff << (32 - width)) >>> 0
    bytes.writeUInt32BE((bytes.readUInt32BE(0) & mask) >>> 0)
    at += significant
    const gateway = ipText(value.subarray(at, at + 4))
    at += 4
    if (gateway !== '0.0.0.0' && !isUnicast(gateway)) continue
    const destination = `${ipText(bytes)}/${width}`
    if (routes.length === MOST || routes.some(route => route.destination === destination)) continue
    routes.push({ destination, ...(gateway !== '0.0.0.0' && { gateway }) })
  }
  return routes
}

/** RFC 3397: domain names as in DNS, compressed by pointers into the option itself. Undefined when one is none. */
function searchList(value: Buffer | undefined): string[] | undefined {
  if (!value?.length) return undefined
  const names: string[] = []
  for (let at = 0; at < value.length; ) {
    const read = domainName(value, at)
    if (!read) return undefined
    const { name, next } = read
    if (!isDomain(name)) return undefined
    if (names.length < MOST && !names.includes(name)) names.push(name)
    at = next
  }
  return names
}

/** A pointer leads back only: so it ends. */
function domainName(bytes: Buffer, start: number): { name: string; next: number } | undefined {
  const labels: string[] = []
  let next: number | undefined
  for (let at = start, bound = start; ; ) {
    const length = bytes[at]
    if (length === undefined) return undefined
    if (length === 0) return { name: labels.join('.'), next: next ?? at + 1 }
    if ((length & 0xc0) === 0xc0) {
      const low = bytes[at + 1]
      if (low === undefined) return undefined
      const target = ((length & 0x3f) << 8) | low
      if (target >= bound) return undefined
      next ??= at + 2
      at = bound = target
    } else {
      if (length > 63 || at + 1 + length > bytes.length || labels.length === 127) return undefined
      labels.push(bytes.toString('latin1', at + 1, at + 1 + length))
      at += 1 + length
    }
  }
}

/** It goes into a file, where a line feed would begin another line: letters, digits, hyphens, underscores and dots only. */
const isDomain = (name: string): boolean =>
  name.length <= 253 && /^(?!-)[A-Za-z0-9_-]{1,63}(\.(?!-)[A-Za-z0-9_-]{1,63})*$/.test(name)
