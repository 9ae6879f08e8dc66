import { z } from 'zod'
import type { Driver } from '../../lib/driver/contract'

/** The host's own network stack: nothing is made, nothing is isolated. One network, never deleted. */
export function host(): Driver {
  return {
    name: 'host',
    capabilities: { dataScope: 'local', connectivityScope: 'local', addresses: false, single: true },
    options: z.strictObject({}),
    createNetwork: async () => ({ state: {} }),
    deleteNetwork: async () => ({}),
    join: async () => ({ disableGatewayService: true }),
    leave: async () => ({}),
  }
}
