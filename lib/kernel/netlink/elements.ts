/** Changes of nftables sets and maps as one batch (linux/netfilter/nfnetlink.h, nf_tables.h). Pure. */
import type { ElementChange, Verdict } from '../kernel'
import {
  NFNL_MSG_BATCH_BEGIN,
  NFNL_MSG_BATCH_END,
  NFNL_SUBSYS_NFTABLES,
  NFPROTO_INET,
  NFT_MSG_DELSETELEM,
  NFT_MSG_NEWSETELEM,
  NLM_F_ACK,
  NLM_F_CREATE,
} from './constants'
import { networkOrder32, type Writer } from './message'

const NFTA_SET_ELEM_LIST_TABLE = 1
const NFTA_SET_ELEM_LIST_SET = 2
const NFTA_SET_ELEM_LIST_ELEMENTS = 3
const NFTA_LIST_ELEM = 1
const NFTA_SET_ELEM_KEY = 1
const NFTA_SET_ELEM_DATA = 2
const NFTA_SET_ELEM_KEY_END = 10
const NFTA_DATA_VALUE = 1
const NFTA_DATA_VERDICT = 2
const NFTA_VERDICT_CODE = 1
const NFTA_VERDICT_CHAIN = 2
/** linux/netfilter.h, nf_tables.h: NF_DROP, NF_ACCEPT, NFT_GOTO. */
const CODE: Record<Verdict['verdict'], number> = { drop: 0, accept: 1, goto: -4 }

/** Bytes. The length of an attribute is a 16-bit number; the next element must still fit. */
const FULL = 0xffff - 256

/** In order; only the last message asks for an acknowledgement, as an error comes unasked and aborts all. */
export function encodeElements(writer: Writer, table: string, changes: readonly ElementChange[]): void {
  bracket(writer, NFNL_MSG_BATCH_BEGIN)
  const messages = changes.filter(({ count }) => count > 0)
  for (const [i, change] of messages.entries()) encode(writer, table, change, i === messages.length - 1)
  bracket(writer, NFNL_MSG_BATCH_END)
}

function bracket(writer: Writer, type: number): void {
  writer.unanswered(type)
  generic(writer, 0, NFNL_SUBSYS_NFTABLES)
  writer.end()
}

/** struct nfgenmsg. */
export function generic(writer: Writer, family: number, resource: number): void {
  writer.u8(family)
  writer.u8(0)
  writer.u16be(resource)
}

function encode(writer: Writer, table: string, change: ElementChange, last: boolean): void {
  const { set, count } = change
  const adds = change.change === 'add'
  const type = (NFNL_SUBSYS_NFTABLES << 8) | (adds ? NFT_MSG_NEWSETELEM : NFT_MSG_DELSETELEM)
  for (let next = 0; next < count; ) {
    const begin = writer.length
    writer.unanswered(type, adds ? NLM_F_CREATE : 0)
    generic(writer, NFPROTO_INET, 0)
    writer.attrText(NFTA_SET_ELEM_LIST_TABLE, table)
    writer.attrText(NFTA_SET_ELEM_LIST_SET, set)
    const list = writer.openMarked(NFTA_SET_ELEM_LIST_ELEMENTS)
    for (; next < count && writer.length - list < FULL; next++) encodeElement(writer, change, next, adds)
    writer.close(list)
    writer.end()
    if (last && next === count) writer.flag(begin, NLM_F_ACK)
  }
}

function encodeElement(writer: Writer, change: ElementChange, i: number, whole: boolean): void {
  const { count, keys, ends, values, verdicts } = change
  const element = writer.openMarked(NFTA_LIST_ELEM)
  data(writer, NFTA_SET_ELEM_KEY, keys, count, i)
  if (ends) data(writer, NFTA_SET_ELEM_KEY_END, ends, count, i)
  if (whole && values) data(writer, NFTA_SET_ELEM_DATA, values, count, i)
  const verdict = whole ? verdicts?.[i] : undefined
  if (verdict) {
    const outer = writer.openMarked(NFTA_SET_ELEM_DATA)
    const inner = writer.openMarked(NFTA_DATA_VERDICT)
    writer.attr32(NFTA_VERDICT_CODE, networkOrder32(CODE[verdict.verdict]))
    if (verdict.verdict === 'goto') writer.attrText(NFTA_VERDICT_CHAIN, verdict.chain)
    writer.close(inner)
    writer.close(outer)
  }
  writer.close(element)
}

/** The i-th of `count` values that lie back to back. */
function data(writer: Writer, type: number, packed: Uint8Array, count: number, i: number): void {
  const size = packed.length / count
  const outer = writer.openMarked(type)
  writer.attrPart(NFTA_DATA_VALUE, packed, i * size, size)
  writer.close(outer)
}
