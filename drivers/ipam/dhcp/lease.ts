/** A lease, and when something must be done about it (RFC 2131, 4.4.5). Pure. */
import { z } from 'zod'
import { contains, parseCidr, parseIp } from '../../../lib/base/cidr'
import type { AddressSettings } from '../../../lib/ipam/contract'
import type { Reply } from './protocol'

export interface Lease {
  /** ADDRESS/LENGTH */
  address: string
  /** Who gave it, and the MAC that it spoke from: its own, or that of a relay. */
  server: string
  serverMac: string
  /** Milliseconds since the epoch; null: never. */
  renewal: number | null
  rebinding: number | null
  expiry: number | null
  settings: AddressSettings
}

const time = z.number().nullable()
/** What was stored of one. */
export const Lease: z.ZodType<Lease> = z.strictObject({
  address: z.string(),
  server: z.string(),
  serverMac: z.string(),
  renewal: time,
  rebinding: time,
  expiry: time,
  settings: z.looseObject({}),
})

/** Shares of the lease's time, where the server names no times. */
const RENEWAL = 0.5
const REBINDING = 0.875
/** Seconds. So that a lease of a second does not keep us busy. */
const SOONEST = 1
/** Milliseconds between two attempts, if there is so much time. */
const PAUSE = 60_000

export interface Circumstances {
  serverMac: string
  /** Of the subnet, where the server tells none. */
  length: number
  /** Bytes that the link carries: no interface on it can have more. */
  mtu: number
  /** Milliseconds since the epoch: when it was asked for. A server's times count from there. */
  asked: number
}

/** The lease that an answer gives. */
export function leaseOf(reply: Reply, { serverMac, length: usual, mtu, asked }: Circumstances): Lease {
  const { address, server, length = usual, seconds } = reply
  const settings = withWay(reply.settings, address, length)
  if (settings.mtu !== undefined) settings.mtu = Math.min(settings.mtu, mtu)
  const whole = { address: `${address}/${length}`, server, serverMac, settings }
  if (seconds === Number.POSITIVE_INFINITY) return { ...whole, renewal: null, rebinding: null, expiry: null }
  const sensible = (value: number | undefined, least: number, usual: number) =>
    value !== undefined && value >= least && value < seconds ? value : usual
  const renewal = sensible(reply.renewal, SOONEST, Math.max(SOONEST, seconds * RENEWAL))
  const rebinding = sensible(reply.rebinding, renewal, Math.max(renewal, seconds * REBINDING))
  const at = (offset: number) => asked + Math.round(offset * 1000)
  return { ...whole, renewal: at(renewal), rebinding: at(rebinding), expiry: at(seconds) }
}

/** A router outside the subnet (clouds give addresses of length 32) is reached over the link. */
function withWay(settings: AddressSettings, address: string, length: number): AddressSettings {
  const { gateway, routes = [] } = settings
  const missing = [gateway, ...routes.map(route => route.gateway)].filter(
    (router): router is string =>
      router !== undefined &&
      !covers(`${address}/${length}`, router) &&
      !routes.some(({ destination, gateway: by }) => !by && covers(destination, router)),
  )
  const ways = [...new Set(missing)].map(router => ({ destination: `${router}/32` }))
  return ways.length ? { ...settings, routes: [...ways, ...routes] } : { ...settings }
}

const covers = (subnet: string, address: string): boolean => contains(parseCidr(subnet), parseIp(address))

export type Act = 'renew' | 'rebind' | 'expire'

/** What is to be done next, and when (milliseconds since the epoch). `tried`: when it was last tried, in vain. */
export function nextAct(lease: Lease, now: number, tried?: number): { act: Act; at: number } | undefined {
  const { renewal, rebinding, expiry } = lease
  if (renewal === null || rebinding === null || expiry === null) return undefined
  if (now >= expiry) return { act: 'expire', at: expiry }
  const [act, begin, end] =
    now >= rebinding ? (['rebind', rebinding, expiry] as const) : (['renew', renewal, rebinding] as const)
  if (tried === undefined || tried < begin) return { act, at: Math.max(begin, now) }
  // Half of what is left, but at least a minute; then the next chapter begins.
  const at = Math.max(now, tried + Math.max((end - tried) / 2, PAUSE))
  if (at < end) return { act, at: Math.round(at) }
  return { act: act === 'renew' ? 'rebind' : 'expire', at: end }
}
