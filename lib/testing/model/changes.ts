import type { Change, LinkRef, Stack } from '../../kernel/kernel'
import { addAddress, removeAddress } from './addresses'
import { addLink, findLink, needLink, removeLink, setLink, showLink } from './links'
import { applyIpsec } from './ipsec'
import { refuse } from './refusal'
import { addRoute, removeRoute } from './routes'
import type { FdbRecord, LinkRecord, Machine, Netns } from './state'

const ZERO_MAC = '00:00:00:00:00:00'

/** Carries out one change, whole, or throws a Refusal and leaves everything as it was. */
export function applyChange(
  machine: Machine,
  netns: Netns,
  change: Change,
  stackOf: (stack: Stack) => Netns,
): void {
  const need = (ref: LinkRef) => needLink(netns, ref)
  switch (change.op) {
    case 'addLink':
      addLink(machine, netns, change.link, stackOf)
      return
    case 'removeLink': {
      const link = change.ifExists ? findLink(netns, change.link) : need(change.link)
      if (link) removeLink(machine, link)
      return
    }
    case 'setLink':
      setLink(machine, need(change.link), change, stackOf)
      return
    case 'setPort': {
      const { op: _, link: ref, ...flags } = change
      const link = need(ref)
      if (!link.port) refuse('EOPNOTSUPP')
      for (const [flag, value] of Object.entries(flags))
        if (value !== undefined) link.port[flag as keyof typeof flags] = value
      machine.emit(netns, { topic: 'link', change: 'set', link: showLink(link) })
      return
    }
    case 'addAddress':
      addAddress(machine, need(change.link), change)
      return
    case 'removeAddress':
      removeAddress(machine, need(change.link), change.address)
      return
    case 'addRoute':
    case 'replaceRoute': {
      const link = change.route.link === undefined ? undefined : need(change.route.link)
      addRoute(machine, netns, change.route, link, change.op === 'replaceRoute')
      return
    }
    case 'removeRoute': {
      const link = change.route.link === undefined ? undefined : need(change.route.link)
      removeRoute(machine, netns, change.route, link)
      return
    }
    case 'addRule': {
      if (netns.rules.some(rule => sameRule(rule, change.rule))) refuse('EEXIST')
      netns.rules.push({ ...change.rule })
      machine.emit(netns, { topic: 'rule', change: 'set', rule: { ...change.rule } })
      return
    }
    case 'removeRule': {
      const at = netns.rules.findIndex(rule => sameRule(rule, change.rule))
      if (at < 0) refuse('ENOENT')
      const [rule] = netns.rules.splice(at, 1)
      if (rule) machine.emit(netns, { topic: 'rule', change: 'removed', rule })
      return
    }
    case 'setNeighbour': {
      const link = need(change.link)
      link.neighbours.set(change.address, { address: change.address, mac: change.mac })
      announceNeighbour(machine, link, change, 'set')
      return
    }
    case 'removeNeighbour': {
      const link = need(change.link)
      if (!link.neighbours.delete(change.address)) refuse('ENOENT')
      announceNeighbour(machine, link, change, 'removed')
      return
    }
    case 'setFdb':
      setFdb(need(change.link), change)
      return
    case 'removeFdb': {
      const link = need(change.link)
      const wanted = fdbOf(link, change)
      const at = link.fdb.findIndex(
        entry =>
          entry.mac === wanted.mac &&
          entry.self === wanted.self &&
          (wanted.remote === undefined || entry.remote === wanted.remote),
      )
      if (at < 0) refuse('ENOENT')
      link.fdb.splice(at, 1)
      return
    }
    case 'setShaper': {
      need(change.link).shaper = change.rate ? { ...change.rate } : undefined
      return
    }
    case 'setIngressMirror': {
      const link = need(change.link)
      link.ingressMirror = change.target === null ? undefined : need(change.target)
      return
    }
    case 'addIpsecState':
    case 'removeIpsecState':
    case 'setIpsecPolicy':
    case 'removeIpsecPolicy':
      applyIpsec(machine, netns, change)
      return
  }
}

const sameRule = (a: object, b: object) => {
  const text = (rule: object) =>
    JSON.stringify(
      Object.entries(rule)
        .filter(([, value]) => value !== undefined)
        .sort(),
    )
  return text(a) === text(b)
}

function announceNeighbour(
  machine: Machine,
  link: LinkRecord,
  { address, mac }: { address: string; mac: string },
  change: 'set' | 'removed',
): void {
  machine.emit(link.netns, {
    topic: 'neighbour',
    change,
    neighbour: { link: link.index, address, mac, permanent: true },
  })
}

/** An entry is the device's own or its bridge's, which must exist. Only a tunnel heeds a remote. */
function fdbOf(link: LinkRecord, wanted: { mac: string; remote?: string; self?: boolean }): FdbRecord {
  const self = wanted.self ?? wanted.remote !== undefined
  if (!self && !link.master) refuse('EOPNOTSUPP')
  const remote = link.data.vxlan && wanted.remote
  return { mac: wanted.mac, self, ...(remote !== undefined && { remote }) }
}

/** Broadcast, multicast, or the all-zero MAC of a vxlan: where what is unknown goes. */
const isGroup = (mac: string) => (Number.parseInt(mac.slice(0, 2), 16) & 1) === 1 || mac === ZERO_MAC

/** A tunnel's group address may have many remotes; every other address has one place. */
function setFdb(link: LinkRecord, wanted: { mac: string; remote?: string; self?: boolean }): void {
  const entry = fdbOf(link, wanted)
  const many = entry.remote !== undefined && isGroup(entry.mac)
  const at = link.fdb.findIndex(
    e => e.mac === entry.mac && e.self === entry.self && (!many || e.remote === entry.remote),
  )
  if (at >= 0) link.fdb[at] = entry
  else link.fdb.push(entry)
}
