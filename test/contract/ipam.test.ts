import { DefaultIpamDriver } from '../../lib/ipam/default'
import { ipamSuite } from '../../lib/testing/ipam-suite'
import { MockIpamDriver } from '../../lib/testing/mock-ipam'

const DRIVERS = {
  default: () => new DefaultIpamDriver({ hostId: 'a host' }),
  mock: () => new MockIpamDriver({ backing: new DefaultIpamDriver({ hostId: 'a host' }) }),
}

describe.each(Object.entries(DRIVERS))('%s', (_, makeDriver) =>
  ipamSuite(makeDriver, { dynamic: { 4: true, 6: true } }),
)
