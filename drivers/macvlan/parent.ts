/** The parent link of macvlan and ipvlan networks: given, made as a VLAN sub-interface, or a dummy. */
import { randomInt } from 'node:crypto'
import { CnmError } from '../../lib/base/errors'
import { addressOf } from '../../lib/base/cidr'
import type {
  Attachment,
  DriverNetwork,
  HostView,
  NetworkSpec,
  NetworkState,
  Plan,
} from '../../lib/driver/contract'
import type { Change } from '../../lib/kernel/kernel'

interface Options {
  parent?: string
  mtu?: number
}

/** For `check`: the MTU of the network is that of its endpoints; the parent, and whoever else is on it, keeps its own. */
const adopted = true

/** `prefix`: of the dummy's name, 3 characters, so that 12 digits of the id fit IFNAMSIZ. */
export async function makeParent(
  spec: NetworkSpec<Options>,
  host: HostView,
  prefix: 'dm-' | 'di-',
  others: DriverNetwork[],
): Promise<{ state: NetworkState; plan?: Plan }> {
  const { parent, mtu } = spec.options
  if (parent === 'lo' || parent?.startsWith('lo.'))
    throw new CnmError(
      'ERR_INVALID_OPTION',
      `parent: loopback interface lo is not a valid parent link (got "${parent}"); name a link to a LAN, or none for a dummy`,
      { parent },
    )
  const link = parent ?? `${prefix}${spec.id.slice(0, 12)}`
  const state: NetworkState = { link, mtu, internal: spec.internal || parent === undefined }
  // A network that shares a link which we made shares the duty to remove it.
  const made = others.some(other => other.state.link === link && other.state.data?.made === true)
  const present = parent === undefined ? undefined : await host.link(parent)
  if (present) {
    refuseLarger(mtu, present)
    return { state: { ...state, data: { made, adopted } } }
  }
  const add: Change =
    parent === undefined
      ? { op: 'addLink', link: { kind: 'dummy', name: link, ...(mtu !== undefined && { mtu }), up: true } }
      : { op: 'addLink', link: { kind: 'vlan', name: link, ...(await vlanOf(parent, host, mtu)), up: true } }
  return {
    state: { ...state, data: { made: true, adopted } },
    plan: { changes: [add], undo: [{ op: 'removeLink', link, ifExists: true }] },
  }
}

/** The kernel says no more than EINVAL, and not before the first endpoint joins. */
function refuseLarger(mtu: number | undefined, parent: { name: string; mtu: number }): void {
  if (mtu === undefined || mtu <= parent.mtu) return
  throw new CnmError(
    'ERR_INVALID_OPTION',
    `mtu: ${mtu} is more than the ${parent.mtu} of parent ${parent.name}; give no more than that, or raise the parent's`,
    { mtu, parent: parent.name },
  )
}

/** BASE.ID with one dot; 802.1Q reserves the ids 0 and 4095. */
async function vlanOf(
  name: string,
  host: HostView,
  mtu: number | undefined,
): Promise<{ parent: string; id: number }> {
  const [, parent, digits] = /^([^.]+)\.(\d+)$/.exec(name) ?? []
  if (!parent || !digits)
    throw new CnmError(
      'ERR_INVALID_OPTION',
      `parent: there is no link ${name}, and it is an invalid subinterface vlan name; example formatting is eth0.10`,
      { parent: name },
    )
  const id = Number(digits)
  if (id < 1 || id > 4094)
    throw new CnmError('ERR_INVALID_OPTION', `parent: vlan id of ${name} must be between 1 and 4094`, {
      parent: name,
    })
  if (digits !== String(id))
    throw new CnmError(
      'ERR_INVALID_OPTION',
      `parent: write ${parent}.${id}, not ${name}: one VLAN, one name`,
      {
        parent: name,
      },
    )
  const base = await host.link(parent)
  if (!base)
    throw new CnmError('ERR_LINK_NOT_FOUND', `parent: there is no link ${parent} to make ${name} on`, {
      parent: name,
    })
  refuseLarger(mtu, base)
  return { parent, id }
}

/**
 * The kernel looks for the index of a link that is to be born in another namespace among the links of the parent's first
 * (rtnl_newlink: EEXIST), or without an index for its name; and every host has an index 2, many an eth0. So an index that
 * nobody has: the kernel's own begin at 1, an int holds 2³¹.
 */
export const indexOfItsOwn = (): number => randomInt(2 ** 24, 2 ** 30)

/** A link that we made goes with its last user. */
export function dropParent(network: DriverNetwork, others: DriverNetwork[]): Plan {
  const { link, data } = network.state
  const shared = others.some(({ spec, state }) => spec.id !== network.spec.id && state.link === link)
  return link && data?.made && !shared ? { changes: [{ op: 'removeLink', link, ifExists: true }] } : {}
}

/** Only a gateway that the user named was allocated; an internal network has none. */
export function gatewaysOf({ spec, state }: DriverNetwork): Attachment['gateways'] {
  if (state.internal) return {}
  return Object.fromEntries(
    spec.pools.flatMap(({ family, gateway }) => (gateway ? [[family, addressOf(gateway)]] : [])),
  )
}
