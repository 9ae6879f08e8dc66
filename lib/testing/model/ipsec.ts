import type { Change, IpsecPolicy, IpsecState } from '../../kernel/kernel'
import { refuse } from './refusal'
import type { Machine, Netns } from './state'

type IpsecChange = Extract<Change, { state: IpsecState } | { policy: IpsecPolicy }>

/** IPsec ESP, as far as states and policies go; `esp` may lack. Policies need none: the kernel looks for states later. */
export function applyIpsec(machine: Machine, netns: Netns, change: IpsecChange): void {
  switch (change.op) {
    case 'addIpsecState': {
      const { state } = change
      if (machine.lacks.has('esp')) refuse('EPROTONOSUPPORT', 'Requested type not found')
      if (netns.ipsecStates.some(each => sameState(each, state))) refuse('EEXIST')
      netns.ipsecStates.push({ ...state })
      return
    }
    case 'removeIpsecState':
      remove(netns.ipsecStates, each => sameState(each, change.state), 'ESRCH')
      machine.emit(netns, { topic: 'ipsec', change: 'removed' })
      return
    case 'setIpsecPolicy': {
      const { policy } = change
      const at = netns.ipsecPolicies.findIndex(each => samePolicy(each, policy))
      netns.ipsecPolicies.splice(at < 0 ? netns.ipsecPolicies.length : at, 1, { ...policy })
      return
    }
    case 'removeIpsecPolicy':
      remove(netns.ipsecPolicies, each => samePolicy(each, change.policy), 'ENOENT')
      machine.emit(netns, { topic: 'ipsec', change: 'removed' })
  }
}

function remove<T>(list: T[], is: (each: T) => boolean, absent: string): void {
  const at = list.findIndex(is)
  if (at < 0) refuse(absent)
  list.splice(at, 1)
}

const sameState = (a: IpsecState, b: IpsecState): boolean =>
  a.destination === b.destination && a.spi === b.spi

const samePolicy = (a: IpsecPolicy, b: IpsecPolicy): boolean =>
  a.destination === b.destination && a.source === b.source && a.port === b.port && a.mark === b.mark
