import { randomFillSync } from 'node:crypto'

/** Random bytes are drawn in bulk: one system call serves some 250 names. */
const pool = Buffer.alloc(4096)
let used = pool.length

export function randomHex(digits: number): string {
  const bytes = (digits + 1) >> 1
  if (used + bytes > pool.length) {
    randomFillSync(pool)
    used = 0
  }
  const hex = pool.toString('hex', used, used + bytes)
  used += bytes
  return hex.slice(0, digits)
}

/** 64 hex digits, as Docker's network, endpoint and sandbox ids. */
export const newId = (): string => randomHex(64)

/** A locally administered MAC address made from an IPv4 address, as Docker's long were. */
export const macOf = (ipv4: string): string =>
  `02:42:${ipv4
    .split('.')
    .map(byte => Number(byte).toString(16).padStart(2, '0'))
    .join(':')}`

/** A random locally administered unicast MAC address (IEEE 802: bit 1 of the first octet set, bit 0 clear). */
export function randomMac(): string {
  const hex = randomHex(12)
  const first = ((Number.parseInt(hex.slice(0, 2), 16) | 0x02) & 0xfe).toString(16).padStart(2, '0')
  return `${first}:${hex.slice(2, 4)}:${hex.slice(4, 6)}:${hex.slice(6, 8)}:${hex.slice(8, 10)}:${hex.slice(10, 12)}`
}
