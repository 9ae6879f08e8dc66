/** Questions about nftables rules (linux/netfilter/nf_tables.h). Pure. */
import { NFNL_SUBSYS_NFTABLES, NFPROTO_INET, NFPROTO_IPV4, NFT_MSG_GETRULE } from './constants'
import { generic } from './elements'
import type { Writer } from './message'

const NFTA_RULE_TABLE = 1

/** nft list table FAMILY TABLE: its rules. */
export function encodeGetRulesOf(writer: Writer, family: 'ip' | 'inet', table: string): void {
  writer.dump((NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_GETRULE)
  generic(writer, family === 'ip' ? NFPROTO_IPV4 : NFPROTO_INET, 0)
  writer.attrText(NFTA_RULE_TABLE, table)
  writer.end()
}
