/**
 * Encrypted networks: what hosts send one another for them is marked on its way out, and IPsec (ESP, transport mode,
 * AES-GCM) takes what is marked. Pure.
 */
import { hkdfSync } from 'node:crypto'
import { familyOf } from '../../lib/base/cidr'
import { randomHex } from '../../lib/base/ids'
import type { KeyRing, Plan, Protection } from '../../lib/driver/contract'
import type { Change, IpsecState } from '../../lib/kernel/kernel'
import { dataOf, type Network } from './tunnel'

/** Bytes of an AES-128 key with the salt of its nonces (RFC 4106, 4), and of a security parameters index behind them. */
const KEY = 20
const SPI = 4
/** Indexes below are reserved (RFC 4303, 2.1). */
const FIRST_SPI = 256

/**
 * Each direction of each pair of hosts has a key of its own, so that no two hosts ever use one nonce. The index comes from the
 * key, too: who has another ring does not take one for the other.
 */
function stateOf(source: string, destination: string, key: string, reqid: number): IpsecState {
  const bytes = Buffer.from(
    hkdfSync('sha256', Buffer.from(key, 'hex'), '', `libcnm esp ${source} ${destination}`, KEY + SPI),
  )
  const spi = bytes.readUInt32BE(KEY)
  return {
    source,
    destination,
    reqid,
    spi: spi < FIRST_SPI ? spi + FIRST_SPI : spi,
    key: bytes.toString('hex', 0, KEY),
  }
}

/** Received with every key, sent with one. */
export function protect(
  networks: Network[],
  local: string,
  remotes: string[],
  { keys, primary }: KeyRing,
  mark: number,
): Protection {
  const sent = keys.find(({ tag }) => tag === primary)
  const ports = [...new Set(networks.map(network => dataOf(network).port))]
  const protection: Protection = { states: [], policies: [] }
  for (const remote of remotes) {
    if (familyOf(remote) !== familyOf(local)) continue
    for (const { key } of keys) protection.states.push(stateOf(remote, local, key, mark))
    if (!sent) continue
    const state = stateOf(local, remote, sent.key, mark)
    protection.states.push(state)
    const { source, destination, spi, reqid } = state
    for (const port of ports) protection.policies.push({ source, destination, port, mark, reqid, spi })
  }
  return protection
}

/**
 * Before anything else of a plan, the kernel shows that it has ESP and AES-GCM: by a state for nobody (no host sends to
 * itself), which is gone at once.
 */
export function tested(local: string, plan: Plan = {}): Plan {
  const state = stateOf(local, local, randomHex(64), 0)
  const remove: Change = { op: 'removeIpsecState', state }
  return {
    ...plan,
    changes: [{ op: 'addIpsecState', state }, remove, ...(plan.changes ?? [])],
    undo: [...(plan.undo ?? []), remove],
  }
}
