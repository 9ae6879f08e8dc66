/** The numbers of the kernel's interface that are used here, by the header that defines them. Nothing is computed. */

// linux/socket.h
export const AF_INET = 2
export const AF_INET6 = 10
export const AF_BRIDGE = 7
export const AF_NETLINK = 16

// linux/netlink.h
export const NETLINK_ROUTE = 0
export const NETLINK_XFRM = 6
export const NETLINK_NETFILTER = 12
export const NLM_F_REQUEST = 0x1
export const NLM_F_ACK = 0x4
export const NLM_F_DUMP = 0x300
export const NLM_F_REPLACE = 0x100
export const NLM_F_EXCL = 0x200
export const NLM_F_CREATE = 0x400
export const NLM_F_APPEND = 0x800
export const NLMSG_NOOP = 1
export const NLA_F_NESTED = 0x8000
/** Without NLA_F_NESTED and NLA_F_NET_BYTEORDER. */
export const NLA_TYPE_MASK = 0x3fff
export const SOL_NETLINK = 270
export const NETLINK_CAP_ACK = 10
export const NETLINK_EXT_ACK = 11
export const NETLINK_GET_STRICT_CHK = 12

// linux/net_namespace.h
export const NETNSA_NSID = 1
export const NETNSA_FD = 3

// linux/rtnetlink.h
export const RTM_NEWLINK = 16
export const RTM_DELLINK = 17
export const RTM_GETLINK = 18
export const RTM_SETLINK = 19
export const RTM_NEWADDR = 20
export const RTM_DELADDR = 21
export const RTM_GETADDR = 22
export const RTM_NEWROUTE = 24
export const RTM_DELROUTE = 25
export const RTM_GETROUTE = 26
export const RTM_NEWNEIGH = 28
export const RTM_DELNEIGH = 29
export const RTM_GETNEIGH = 30
export const RTM_NEWRULE = 32
export const RTM_DELRULE = 33
export const RTM_GETRULE = 34
export const RTM_NEWQDISC = 36
export const RTM_DELQDISC = 37
export const RTM_GETQDISC = 38
export const RTM_NEWTFILTER = 44
export const RTM_GETTFILTER = 46
export const RTM_NEWNSID = 88
export const RTM_GETNSID = 90
export const RTPROT_KERNEL = 2
export const RTNLGRP_LINK = 1
export const RTNLGRP_NEIGH = 3
export const RTNLGRP_IPV4_IFADDR = 5
export const RTNLGRP_IPV4_ROUTE = 7
export const RTNLGRP_IPV4_RULE = 8
export const RTNLGRP_IPV6_IFADDR = 9
export const RTNLGRP_IPV6_ROUTE = 11
export const RTNLGRP_IPV6_RULE = 19
export const RT_SCOPE_UNIVERSE = 0
export const RT_SCOPE_SITE = 200
export const RT_SCOPE_LINK = 253
export const RT_SCOPE_HOST = 254
export const RT_SCOPE_NOWHERE = 255
export const RT_TABLE_MAIN = 254
export const RTPROT_STATIC = 4
export const RTM_F_FIB_MATCH = 0x2000
export const RTNH_F_ONLINK = 4
export const RTA_DST = 1
export const RTA_OIF = 4
export const RTA_GATEWAY = 5
export const RTA_PRIORITY = 6
export const RTA_PREFSRC = 7
export const RTA_METRICS = 8
export const RTA_MULTIPATH = 9
export const RTA_TABLE = 15
export const RTA_VIA = 18
export const RTAX_MTU = 2

// linux/if.h
export const IFF_UP = 0x1
export const IFF_LOOPBACK = 0x8
export const IFF_PROMISC = 0x100
export const IFF_LOWER_UP = 0x10000

// linux/if_link.h
export const IFLA_ADDRESS = 1
export const IFLA_IFNAME = 3
export const IFLA_MTU = 4
export const IFLA_LINK = 5
export const IFLA_MASTER = 10
export const IFLA_PROTINFO = 12
export const IFLA_LINKINFO = 18
export const IFLA_IFALIAS = 20
export const IFLA_STATS64 = 23
export const IFLA_NET_NS_FD = 28
export const IFLA_INFO_KIND = 1
export const IFLA_INFO_DATA = 2
export const IFLA_INFO_SLAVE_KIND = 4
export const IFLA_INFO_SLAVE_DATA = 5
export const IFLA_BR_VLAN_FILTERING = 7
export const IFLA_BR_MCAST_SNOOPING = 23
export const IFLA_BRPORT_STATE = 1
/** Hairpin. */
export const IFLA_BRPORT_MODE = 4
export const IFLA_BRPORT_LEARNING = 8
export const IFLA_BRPORT_UNICAST_FLOOD = 9
export const IFLA_BRPORT_NEIGH_SUPPRESS = 32
export const IFLA_BRPORT_ISOLATED = 33
export const IFLA_VXLAN_ID = 1
export const IFLA_VXLAN_LINK = 3
export const IFLA_VXLAN_LOCAL = 4
export const IFLA_VXLAN_LEARNING = 7
export const IFLA_VXLAN_PROXY = 11
export const IFLA_VXLAN_L2MISS = 13
export const IFLA_VXLAN_L3MISS = 14
export const IFLA_VXLAN_PORT = 15
export const IFLA_VXLAN_LOCAL6 = 17
export const IFLA_MACVLAN_MODE = 1
/** Since Linux 5.11. */
export const IFLA_MACVLAN_BC_QUEUE_LEN = 7
/** Since Linux 6.4. */
export const IFLA_MACVLAN_BC_CUTOFF = 9
export const IFLA_IPVLAN_MODE = 1
export const IFLA_IPVLAN_FLAGS = 2
export const IFLA_VLAN_ID = 1

// linux/veth.h
export const VETH_INFO_PEER = 1

// linux/if_addr.h
export const IFA_ADDRESS = 1
export const IFA_LOCAL = 2
export const IFA_BROADCAST = 4
export const IFA_FLAGS = 8
export const IFA_F_NODAD = 0x02
export const IFA_F_TENTATIVE = 0x40
export const IFA_F_PERMANENT = 0x80
export const IFA_F_NOPREFIXROUTE = 0x200

// linux/fib_rules.h
export const FRA_DST = 1
export const FRA_SRC = 2
export const FRA_IIFNAME = 3
export const FRA_PRIORITY = 6
export const FRA_FWMARK = 10
export const FRA_TABLE = 15
export const FRA_OIFNAME = 17
export const FR_ACT_TO_TBL = 1

// linux/neighbour.h
export const NDA_DST = 1
export const NDA_LLADDR = 2
export const NDA_VLAN = 5
export const NUD_REACHABLE = 0x02
export const NUD_NOARP = 0x40
export const NUD_PERMANENT = 0x80
export const NTF_SELF = 0x02
export const NTF_MASTER = 0x04

// linux/pkt_sched.h, linux/pkt_cls.h, linux/tc_act/tc_mirred.h
export const TC_H_ROOT = 0xffffffff
export const TC_H_INGRESS = 0xfffffff1
export const INGRESS_HANDLE = 0xffff0000
/** TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS): what enters, to the ingress as to the clsact discipline. */
export const INGRESS_PARENT = 0xfffffff2
export const TCA_KIND = 1
export const TCA_OPTIONS = 2
export const TCA_TBF_PARMS = 1
export const TCA_TBF_RATE64 = 4
export const TCA_TBF_BURST = 6
export const TC_LINKLAYER_ETHERNET = 1
export const TCA_U32_SEL = 5
export const TCA_U32_ACT = 7
export const TC_U32_TERMINAL = 1
export const TCA_ACT_KIND = 1
export const TCA_ACT_OPTIONS = 2
export const TCA_MIRRED_PARMS = 2
export const TCA_EGRESS_REDIR = 1
export const TC_ACT_STOLEN = 4

// linux/if_ether.h
export const ETH_P_ALL = 3

// linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
export const NFNL_SUBSYS_NFTABLES = 10
export const NFNL_MSG_BATCH_BEGIN = 0x10
export const NFNL_MSG_BATCH_END = 0x11
export const NFPROTO_INET = 1
export const NFPROTO_IPV4 = 2
export const NFT_MSG_GETRULE = 7
export const NFT_MSG_NEWSETELEM = 12
export const NFT_MSG_DELSETELEM = 14
export const NFNLGRP_NFTABLES = 7
export const NFT_MSG_NEWGEN = 15
export const NFTA_GEN_PROC_PID = 2
/** NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE, NFTA_SET_TABLE ...: the table is attribute 1 of every object. */
export const NFTA_TABLE = 1
