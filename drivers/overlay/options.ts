import { z } from 'zod'
import { flag, integer } from '../../lib/driver/options'

/** Options of an overlay network. Each may be given as Docker's label, too: see {@link LABELS}. */
export const OverlayOptions = z.strictObject({
  id: integer(1, 2 ** 24 - 1)
    .optional()
    .describe('VXLAN network identifier; default: the lowest free one of the cluster from 4096 on'),
  mtu: integer(68, 65535).optional().describe('bytes; default: what the underlay leaves'),
  encrypted: flag().default(false).describe('protect traffic between hosts with IPsec'),
})
export type OverlayOptions = z.output<typeof OverlayOptions>

const PREFIX = 'com.docker.network.driver.'

export const LABELS: Readonly<Record<string, string>> = {
  [`${PREFIX}overlay.vxlanid_list`]: 'id',
  [`${PREFIX}mtu`]: 'mtu',
  encrypted: 'encrypted',
}

/** What other hosts must know of a network. */
export const OverlayData = z.object({
  vni: z
    .number()
    .int()
    .min(1)
    .max(2 ** 24 - 1),
  /** UDP, of the tunnels. */
  port: z.number().int().min(1).max(65535),
})
export type OverlayData = z.output<typeof OverlayData>
