import { z } from 'zod'
import type { Driver } from '../../lib/driver/contract'
import { integer } from '../../lib/driver/options'
import { gatewaysOf } from './parent'
import { commonOptions, subInterfaces } from './sub-interface'

const { parent, mtu, hostAccess } = commonOptions('mode bridge only')
const MacvlanOptions = z.strictObject({
  parent,
  mode: z.enum(['bridge', 'private', 'vepa', 'passthru']).default('bridge'),
  mtu,
  broadcastCutoff: integer(-1, 2147483647)
    .optional()
    .describe(
      'up to so many receivers of a multicast address are served without queueing, -1: all; Linux 6.4',
    ),
  broadcastQueue: integer(0, 4294967295)
    .optional()
    .describe('packets that may wait to be copied to everybody; default: 1000; Linux 5.11'),
  hostAccess,
})
type MacvlanOptions = z.output<typeof MacvlanOptions>

/** Each endpoint is a link of its own MAC on the parent, born in the sandbox. */
export const macvlan = (): Driver<MacvlanOptions> =>
  subInterfaces<MacvlanOptions>({
    name: 'macvlan',
    options: MacvlanOptions,
    // Docker's; then what Podman and CNI call the same.
    labels: { macvlan_mode: 'mode', bclim: 'broadcastCutoff', bcqueuelen: 'broadcastQueue' },
    prefixes: { dummy: 'dm-', host: 'hm-' },
    sharedMac: false,
    apart: ({ mode }) =>
      mode === 'bridge'
        ? undefined
        : `in mode ${mode} nobody on the parent reaches the containers directly, the host neither; it needs mode bridge`,
    share: (one, other) => one.mode !== 'passthru' && other.mode !== 'passthru',
    conflict: (options, { spec }) =>
      `cannot use mode ${options.mode}, macvlan network ${spec.name} (${spec.id}) is already using parent interface ${options.parent}; in mode passthru a network has it alone`,
    link: ({ mode, broadcastCutoff, broadcastQueue }) => ({
      kind: 'macvlan',
      mode,
      broadcastCutoff,
      broadcastQueue,
    }),
    gateways: gatewaysOf,
  })
