import { z } from 'zod'
import type { Driver } from '../../lib/driver/contract'

/** No network: a sandbox with nothing but its loopback. One network, never deleted. */
export function nullDriver(): Driver {
  return {
    name: 'null',
    capabilities: { dataScope: 'local', connectivityScope: '', addresses: false, single: true },
    options: z.strictObject({}),
    createNetwork: async () => ({ state: {} }),
    deleteNetwork: async () => ({}),
    join: async () => ({ disableGatewayService: true }),
    leave: async () => ({}),
  }
}
