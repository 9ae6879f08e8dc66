/** The drivers on a modelled kernel, by the suite that authors of drivers get. */
import { bridge, type Driver, host, nullDriver } from 'libcnm'
import { driverSuite, MockDriver } from 'libcnm/testing'

driverSuite('bridge', { makeDriver: () => bridge() as Driver })
driverSuite('bridge, isolated ports, IPv4 only', {
  makeDriver: () => bridge() as Driver,
  options: { icc: false, mtu: 1400 },
  subnets: [['10.123.1.0/24'], ['10.123.2.0/24']],
})
driverSuite('host', { makeDriver: host, mode: 'host' })
driverSuite('null', { makeDriver: nullDriver })
driverSuite('MockDriver', { makeDriver: () => new MockDriver(), strict: false })
