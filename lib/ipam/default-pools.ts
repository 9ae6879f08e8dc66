/** What pools are cut from when nobody names one. */
import { createHash } from 'node:crypto'
import { BITS, type Cidr, formatCidr, network, overlaps, parseCidr } from '../base/cidr'
import { CnmError } from '../base/errors'
import { unusable } from './special'

export interface DefaultPool {
  /** CIDR. */
  base: string
  /** Prefix length of the pools cut from it. */
  size: number
}

/** {@link DefaultPool} after the checks. */
export interface PoolSource {
  base: Cidr
  size: number
}

/** Networks of one host: 31 of them. */
export const LOCAL_POOLS: readonly DefaultPool[] = [
  { base: '172.17.0.0/16', size: 16 },
  { base: '172.18.0.0/16', size: 16 },
  { base: '172.19.0.0/16', size: 16 },
  { base: '172.20.0.0/14', size: 16 },
  { base: '172.24.0.0/14', size: 16 },
  { base: '172.28.0.0/14', size: 16 },
  { base: '192.168.0.0/16', size: 20 },
]

/** Networks that span hosts: 65,536 of them. */
export const GLOBAL_POOLS: readonly DefaultPool[] = [{ base: '10.0.0.0/8', size: 24 }]

/**
 * The IPv6 default of a host: a unique local prefix (RFC 4193), /48 cut into /64. Its global id is the low 40 bits of
 * the first 8 bytes of SHA-256 of the host id, so that hosts differ and one host always gets the same.
 */
export function uniqueLocalPool(hostId: string): DefaultPool {
  const head = createHash('sha256').update(hostId).digest().readBigUInt64BE(0)
  const value = (0xfdn << 120n) | ((head & 0xff_ffff_ffffn) << 80n)
  return { base: formatCidr({ family: 6, value, length: 48 }), size: 64 }
}

const MAPPED = 0xffffn << 32n // ::ffff:0:0/96, RFC 4291 2.5.5.2

/**
 * Checks and orders pools given by the user: host bits are cleared, IPv4 written as IPv6 becomes IPv4, sorted by family
 * and address; one that lies inside an earlier one is dropped. Throws ERR_POOL_INVALID.
 */
export function poolSources(pools: readonly DefaultPool[]): PoolSource[] {
  const sources = pools.map(({ base, size }) => {
    let parsed: Cidr
    try {
      parsed = parseCidr(base)
    } catch (cause) {
      throw invalid(base, size, 'the base is not of the form ADDRESS/LENGTH', cause)
    }
    if (parsed.family === 6 && parsed.length >= 96 && parsed.value >> 32n === MAPPED >> 32n) {
      parsed = { family: 4, value: parsed.value & 0xffffffffn, length: parsed.length - 96 }
      if (size >= 96) size -= 96
    }
    if (!Number.isInteger(size) || size < 1 || size > BITS[parsed.family])
      throw invalid(base, size, `the size must be a prefix length from 1 to ${BITS[parsed.family]}`)
    if (parsed.length > size)
      throw invalid(
        base,
        size,
        `its prefix /${parsed.length} is longer than the size /${size} to cut from it`,
      )
    if (network(parsed).value === 0n)
      throw invalid(base, size, 'the unspecified address stands for "any pool", so it cannot be a base')
    const bad = unusable(network(parsed))
    if (bad !== undefined) throw invalid(base, size, `it cannot be used, ${bad.why}`)
    return { base: network(parsed), size }
  })
  sources.sort(
    (a, b) =>
      a.base.family - b.base.family ||
      (a.base.value < b.base.value ? -1 : a.base.value > b.base.value ? 1 : a.base.length - b.base.length),
  )
  const kept: PoolSource[] = []
  for (const source of sources) {
    const before = kept[kept.length - 1]
    if (!before || !overlaps(before.base, source.base)) kept.push(source)
  }
  return kept
}

function invalid(base: string, size: number, why: string, cause?: unknown): CnmError {
  const text = `default address pool { base: ${JSON.stringify(base)}, size: ${size} }: ${why}`
  return new CnmError('ERR_POOL_INVALID', text, { base, size }, { cause })
}
