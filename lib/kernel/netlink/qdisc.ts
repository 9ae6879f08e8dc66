import type { Change, Shaper } from '../kernel'
import {
  ETH_P_ALL,
  INGRESS_HANDLE,
  INGRESS_PARENT,
  NLM_F_CREATE,
  NLM_F_REPLACE,
  RTM_DELQDISC,
  RTM_GETQDISC,
  RTM_GETTFILTER,
  RTM_NEWQDISC,
  RTM_NEWTFILTER,
  TC_ACT_STOLEN,
  TC_H_INGRESS,
  TC_H_ROOT,
  TC_LINKLAYER_ETHERNET,
  TC_U32_TERMINAL,
  TCA_ACT_KIND,
  TCA_ACT_OPTIONS,
  TCA_EGRESS_REDIR,
  TCA_KIND,
  TCA_MIRRED_PARMS,
  TCA_OPTIONS,
  TCA_TBF_BURST,
  TCA_TBF_PARMS,
  TCA_TBF_RATE64,
  TCA_U32_ACT,
  TCA_U32_SEL,
} from './constants'
import { type Attributes, type Messages, networkOrder16, type Writer } from './message'
import type { Resolver } from './resolver'

/** struct tcmsg */
function tcmsg(w: Writer, index: number, handle: number, parent: number, info: number): void {
  w.zeros(4) // family, padding
  w.u32(index)
  w.u32(handle)
  w.u32(parent)
  w.u32(info)
}

/** Bytes. Ten full frames: less, and an offloaded packet could never pass. */
const LEAST_BURST = 15_140
/** The burst is at least what the rate amounts to in this many seconds, so that a coarse timer still reaches the rate. */
const BURST_SECONDS = 0.01
/** Milliseconds that a packet may wait before it is dropped. */
const LATENCY = 50
/** One tick of the packet scheduler's clock is 64 ns (net/pkt_sched.h PSCHED_SHIFT). */
const TICK = 64e-9
const U32 = 0xffffffff

export interface Bucket {
  /** Bytes per second. */
  rate: number
  /** Bytes. */
  burst: number
  /** Bytes that may wait. */
  limit: number
  /** Ticks in which the burst is sent at the rate. */
  ticks: number
}

/** Pure: the numbers of a token bucket. */
export function bucketOf(rate: { bitsPerSecond: number; burstBytes?: number; latencyMs?: number }): Bucket {
  const bytes = Math.max(1, Math.round(rate.bitsPerSecond / 8))
  const burst = rate.burstBytes ?? Math.max(LEAST_BURST, Math.round(bytes * BURST_SECONDS))
  const limit = Math.round((bytes * (rate.latencyMs ?? LATENCY)) / 1000) + burst
  return {
    rate: bytes,
    burst: Math.min(burst, U32),
    limit: Math.min(limit, U32),
    ticks: Math.min(Math.trunc(burst / bytes / TICK), U32),
  }
}

type ShaperChange = Extract<Change, { op: 'setShaper' }>
type MirrorChange = Extract<Change, { op: 'setIngressMirror' }>

/** `tc qdisc replace dev LINK root tbf ...`, or its removal. */
export function encodeShaper(w: Writer, change: ShaperChange, resolve: Resolver): void {
  const index = resolve.link(change.link)
  if (change.rate === null) {
    w.request(RTM_DELQDISC)
    tcmsg(w, index, 0, TC_H_ROOT, 0)
    w.end()
    return
  }
  const bucket = bucketOf(change.rate)
  w.request(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE)
  tcmsg(w, index, 0, TC_H_ROOT, 0)
  w.attrText(TCA_KIND, 'tbf')
  const options = w.open(TCA_OPTIONS)
  const parameters = w.open(TCA_TBF_PARMS) // struct tc_tbf_qopt
  // struct tc_ratespec. A known link layer spares the table of transmission times (TCA_TBF_RTAB).
  w.u8(0)
  w.u8(TC_LINKLAYER_ETHERNET)
  w.zeros(6)
  w.u32(Math.min(bucket.rate, U32))
  w.zeros(12) // no peak rate
  w.u32(bucket.limit)
  w.u32(bucket.ticks)
  w.u32(0)
  w.close(parameters)
  w.attr32(TCA_TBF_BURST, bucket.burst)
  if (bucket.rate > U32) w.attr64(TCA_TBF_RATE64, BigInt(bucket.rate))
  w.close(options)
  w.end()
}

/** Makes what {@link encodeMirrorFilter} hangs on to, or removes both. */
export function encodeIngress(w: Writer, change: MirrorChange, resolve: Resolver): void {
  const remove = change.target === null
  w.request(remove ? RTM_DELQDISC : RTM_NEWQDISC, remove ? 0 : NLM_F_CREATE)
  tcmsg(w, resolve.link(change.link), INGRESS_HANDLE, TC_H_INGRESS, 0)
  w.attrText(TCA_KIND, 'ingress')
  w.end()
}

const FIRST_NODE = 0x80000001 // of the u32 classifier: table 800, node 1
const PRIORITY = 1

/**
 * `tc filter replace dev LINK ingress u32 match u32 0 0 action mirred egress redirect dev TARGET`: all that enters.
 * Of u32 and matchall, u32 is the one that also small kernels have.
 */
export function encodeMirrorFilter(w: Writer, link: number, target: number): void {
  w.request(RTM_NEWTFILTER, NLM_F_CREATE)
  tcmsg(w, link, FIRST_NODE, INGRESS_PARENT, PRIORITY * 0x10000 + networkOrder16(ETH_P_ALL))
  w.attrText(TCA_KIND, 'u32')
  const options = w.open(TCA_OPTIONS)
  const selector = w.open(TCA_U32_SEL) // struct tc_u32_sel with one struct tc_u32_key, which matches anything
  w.u8(TC_U32_TERMINAL)
  w.u8(0)
  w.u8(1) // keys
  w.zeros(13 + 16)
  w.close(selector)
  const actions = w.open(TCA_U32_ACT)
  const first = w.open(1) // actions are numbered from 1
  w.attrText(TCA_ACT_KIND, 'mirred')
  const action = w.open(TCA_ACT_OPTIONS)
  const parameters = w.open(TCA_MIRRED_PARMS) // struct tc_mirred
  w.zeros(8) // index, capabilities
  w.u32(TC_ACT_STOLEN)
  w.zeros(8) // reference counts
  w.u32(TCA_EGRESS_REDIR)
  w.u32(target)
  w.close(parameters)
  w.close(action)
  w.close(first)
  w.close(actions)
  w.close(options)
  w.end()
}

const TCMSG = 20 // bytes of struct tcmsg

/** `tc qdisc show`, of all links. */
export function encodeGetQdiscs(w: Writer): void {
  w.dump(RTM_GETQDISC)
  tcmsg(w, 0, 0, 0, 0)
  w.end()
}

/** `tc filter show dev LINK ingress` */
export function encodeGetFilters(w: Writer, link: number): void {
  w.dump(RTM_GETTFILTER)
  tcmsg(w, link, 0, INGRESS_PARENT, 0)
  w.end()
}

/** RTM_NEWQDISC: a token bucket at the root of a link, or a link that has a discipline for what enters. */
export function decodeQdisc(message: Messages): Pick<Shaper, 'link' | 'bitsPerSecond'> | undefined {
  if (message.type !== RTM_NEWQDISC || message.size < TCMSG) return undefined
  const [link, parent] = [message.u32(4), message.u32(12)]
  if (parent === TC_H_INGRESS) return { link }
  const bytes = parent === TC_H_ROOT ? rateOf(message.attributes(TCMSG)) : undefined
  return bytes === undefined ? undefined : { link, bitsPerSecond: 8 * bytes }
}

/** Bytes per second, of a token bucket. */
function rateOf(attributes: Attributes): number | undefined {
  let [kind, rate] = ['', 0]
  while (attributes.next())
    if (attributes.type === TCA_KIND) kind = attributes.text()
    else if (attributes.type === TCA_OPTIONS) {
      const options = attributes.nested()
      while (options.next())
        if (options.type === TCA_TBF_PARMS)
          rate ||= options.u32(8) // struct tc_ratespec: rate
        else if (options.type === TCA_TBF_RATE64) rate = options.u64()
    }
  return kind === 'tbf' ? rate : undefined
}

/** RTM_NEWTFILTER: the redirect of {@link encodeMirrorFilter}. */
export function decodeMirrorFilter(
  message: Messages,
): (Pick<Shaper, 'link'> & { mirror: number }) | undefined {
  if (message.type !== RTM_NEWTFILTER || message.size < TCMSG) return undefined
  const mirror = within(message.attributes(TCMSG), [
    TCA_OPTIONS,
    TCA_U32_ACT,
    1,
    TCA_ACT_OPTIONS,
    TCA_MIRRED_PARMS,
  ])
  // struct tc_mirred: behind 20 bytes of every action's, which way and whither
  return mirror?.u32(20) === TCA_EGRESS_REDIR ? { link: message.u32(4), mirror: mirror.u32(24) } : undefined
}

/** The attribute at the end of a path of nested ones. */
function within(attributes: Attributes, [type, ...path]: number[]): Attributes | undefined {
  while (attributes.next())
    if (attributes.type === type) return path.length ? within(attributes.nested(), path) : attributes
  return undefined
}
