import { type Family, ipBytes } from '../base/cidr'
import { canonicalIp } from '../base/cidr'
import { CnmError, isCnmError } from '../base/errors'
import { type CustomRecord, RECORD_TTL } from './contract'
import type { Resource } from './wire/answer'
import { encodeName, lowerCase, TYPE } from './wire/message'

/** The data part of records (RFC 1035 3.3, 3.4; RFC 3596 AAAA; RFC 2782 SRV). */

export const addressRecord = (address: string, ttl = RECORD_TTL): Resource => {
  const data = ipBytes(address)
  return { type: data.length === 4 ? TYPE.A : TYPE.AAAA, ttl, data }
}

/** `name` was checked to be encodable. */
export const nameRecord = (type: number, name: string, ttl = RECORD_TTL): Resource => ({
  type,
  ttl,
  data: encodeName(name) as Buffer,
})

export function srvRecord(
  target: string,
  port: number,
  { priority = 0, weight = 0, ttl = RECORD_TTL }: { priority?: number; weight?: number; ttl?: number } = {},
): Resource {
  const head = Buffer.alloc(6)
  head.writeUInt16BE(priority, 0)
  head.writeUInt16BE(weight, 2)
  head.writeUInt16BE(port, 4)
  return { type: TYPE.SRV, ttl, data: Buffer.concat([head, encodeName(target) as Buffer]) }
}

/** A TXT record is a row of strings of at most 255 bytes each: longer text is cut into several. */
function textData(text: string | string[]): Buffer | undefined {
  const parts: Buffer[] = []
  for (const each of Array.isArray(text) ? text : [text]) {
    const bytes = Buffer.from(each)
    for (let at = 0; at === 0 || at < bytes.length; at += 255) {
      const part = bytes.subarray(at, at + 255)
      parts.push(Buffer.from([part.length]), part)
    }
  }
  const data = Buffer.concat(parts)
  return data.length > 0 && data.length <= 16384 ? data : undefined
}

/** Lower case, without the trailing dot; undefined if it cannot stand in a message. */
export function zoneName(name: string): string | undefined {
  const lower = lowerCase(name.endsWith('.') ? name.slice(0, -1) : name)
  if (lower === '' || lower.length > 253 || !/^[\x21-\x7e]+$/.test(lower)) return undefined
  return encodeName(lower) ? lower : undefined
}

export interface ZoneRecord {
  name: string
  resource: Resource
  /** CNAME and SRV: the name that it leads to. */
  target?: string
}

const isUint16 = (value: number | undefined) =>
  value === undefined || (Number.isInteger(value) && value >= 0 && value <= 65535)

/** Checks a record that a user wrote. Throws ERR_INVALID_OPTION. */
export function zoneRecord(record: CustomRecord): ZoneRecord {
  const refuse = (why: string): never => {
    throw new CnmError('ERR_INVALID_OPTION', `record ${JSON.stringify(record)}: ${why}`, { record })
  }
  const name = zoneName(record.name) ?? refuse('name must be a DNS name: labels of 1 to 63 bytes, 253 in all')
  if (name.includes('*') && name !== '*' && !/^\*\.[^*]+$/.test(name))
    refuse('a wildcard stands for the whole first label: "*.NAME"')
  const ttl = record.ttl ?? RECORD_TTL
  if (!Number.isInteger(ttl) || ttl < 0 || ttl > 0x7fffffff) refuse('ttl must be seconds, 0 to 2147483647')
  switch (record.type) {
    case 'A':
    case 'AAAA': {
      const resource = addressRecord(address(record.address, record.type === 'A' ? 4 : 6, refuse), ttl)
      return { name, resource }
    }
    case 'CNAME': {
      const target = zoneName(record.target) ?? refuse('target must be a DNS name')
      return { name, target, resource: nameRecord(TYPE.CNAME, target, ttl) }
    }
    case 'SRV': {
      const target = zoneName(record.target) ?? refuse('target must be a DNS name')
      if (!isUint16(record.port) || !isUint16(record.priority) || !isUint16(record.weight))
        refuse('port, priority and weight must be 0 to 65535')
      return { name, target, resource: srvRecord(target, record.port, { ...record, ttl }) }
    }
    case 'TXT': {
      const data = textData(record.text) ?? refuse('text must be 1 to 16384 bytes')
      return { name, resource: { type: TYPE.TXT, ttl, data } }
    }
    default:
      return refuse('type must be A, AAAA, CNAME, TXT or SRV')
  }
}

function address(text: string, family: Family, refuse: (why: string) => never): string {
  try {
    const canonical = canonicalIp(text)
    if (canonical.includes(':') === (family === 6)) return canonical
  } catch (error) {
    if (!isCnmError(error)) throw error
  }
  return refuse(`address must be an IPv${family} address`)
}

/** The address that `4.3.2.1.in-addr.arpa` or a name of 32 nibbles under `ip6.arpa` asks for (RFC 1035 3.5, RFC 3596 2.5). */
export function reversedAddress(name: string): string | undefined {
  if (name.endsWith('.in-addr.arpa')) {
    const octets = name.slice(0, -13).split('.')
    if (
      octets.length !== 4 ||
      !octets.every(octet => /^(0|[1-9]\d{0,2})$/.test(octet) && Number(octet) < 256)
    )
      return undefined
    return octets.reverse().join('.')
  }
  if (!name.endsWith('.ip6.arpa')) return undefined
  const nibbles = name.slice(0, -9).split('.')
  if (nibbles.length !== 32 || !nibbles.every(nibble => /^[0-9a-f]$/.test(nibble))) return undefined
  const hex = nibbles.reverse().join('')
  return canonicalIp((hex.match(/.{4}/g) as string[]).join(':'))
}
