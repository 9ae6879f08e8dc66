import { addressOf, type Family, ipBytes, ipText } from '../../base/cidr'
import type { Rule } from '../kernel'
import { lengthOf } from './address'
import {
  AF_INET,
  AF_INET6,
  FR_ACT_TO_TBL,
  FRA_DST,
  FRA_FWMARK,
  FRA_IIFNAME,
  FRA_OIFNAME,
  FRA_PRIORITY,
  FRA_SRC,
  FRA_TABLE,
  NLM_F_CREATE,
  NLM_F_EXCL,
  RTM_DELRULE,
  RTM_GETRULE,
  RTM_NEWRULE,
} from './constants'
import type { Messages, Writer } from './message'

/** struct fib_rule_hdr */
function header(w: Writer, family: number, to: number, from: number, table: number, action: number): void {
  w.u8(family)
  w.u8(to)
  w.u8(from)
  w.u8(0) // type of service
  w.u8(table)
  w.zeros(2)
  w.u8(action)
  w.u32(0) // flags
}

/** A policy routing rule that sends to a table. */
export function encodeRule(w: Writer, add: boolean, rule: Rule): void {
  w.request(add ? RTM_NEWRULE : RTM_DELRULE, add ? NLM_F_CREATE | NLM_F_EXCL : 0)
  header(
    w,
    rule.family === 6 ? AF_INET6 : AF_INET,
    rule.destination === undefined ? 0 : lengthOf(rule.destination),
    rule.source === undefined ? 0 : lengthOf(rule.source),
    rule.table < 256 ? rule.table : 0,
    add ? FR_ACT_TO_TBL : 0,
  )
  w.attr32(FRA_PRIORITY, rule.priority)
  if (rule.source !== undefined) w.attrBytes(FRA_SRC, ipBytes(addressOf(rule.source)))
  if (rule.destination !== undefined) w.attrBytes(FRA_DST, ipBytes(addressOf(rule.destination)))
  if (rule.mark !== undefined) w.attr32(FRA_FWMARK, rule.mark)
  if (rule.iif !== undefined) w.attrText(FRA_IIFNAME, rule.iif)
  if (rule.oif !== undefined) w.attrText(FRA_OIFNAME, rule.oif)
  if (rule.table >= 256) w.attr32(FRA_TABLE, rule.table)
  w.end()
}

export function encodeGetRules(w: Writer, family: Family): void {
  w.dump(RTM_GETRULE)
  header(w, family === 6 ? AF_INET6 : AF_INET, 0, 0, 0, 0)
  w.end()
}

/** RTM_NEWRULE or RTM_DELRULE. */
export function decodeRule(message: Messages): Rule | undefined {
  if ((message.type !== RTM_NEWRULE && message.type !== RTM_DELRULE) || message.size < 12) return undefined
  const family = message.u8(0)
  if (family !== AF_INET && family !== AF_INET6) return undefined
  const size = family === AF_INET6 ? 16 : 4
  const rule: Rule = { family: family === AF_INET6 ? 6 : 4, priority: 0, table: message.u8(4) }
  const attributes = message.attributes(12)
  while (attributes.next())
    switch (attributes.type) {
      case FRA_PRIORITY:
        rule.priority = attributes.u32()
        break
      case FRA_TABLE:
        rule.table = attributes.u32()
        break
      case FRA_SRC:
        if (attributes.size === size) rule.source = `${ipText(attributes.bytes())}/${message.u8(2)}`
        break
      case FRA_DST:
        if (attributes.size === size) rule.destination = `${ipText(attributes.bytes())}/${message.u8(1)}`
        break
      case FRA_FWMARK:
        rule.mark = attributes.u32()
        break
      case FRA_IIFNAME:
        rule.iif = attributes.text()
        break
      case FRA_OIFNAME:
        rule.oif = attributes.text()
        break
    }
  return rule
}
