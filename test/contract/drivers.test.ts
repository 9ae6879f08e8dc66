/** The drivers on a modelled kernel, by the suite that authors of drivers get. */
import { bridge, type Driver, host, ipvlan, macvlan, nullDriver } from 'libcnm'
import { driverSuite, MockDriver } from 'libcnm/testing'

driverSuite('bridge', { makeDriver: () => bridge() as Driver })
driverSuite('bridge, isolated ports, IPv4 only', {
  makeDriver: () => bridge() as Driver,
  options: { icc: false, mtu: 1400 },
  subnets: [['10.123.1.0/24'], ['10.123.2.0/24']],
})
for (const options of [{ mtu: 1400 }, { hostAccess: true }, { mode: 'private' }])
  driverSuite(`macvlan ${JSON.stringify(options)}`, { makeDriver: () => macvlan() as Driver, options })
for (const options of [{ mtu: 1400 }, { hostAccess: true }, { mode: 'l3' }, { mode: 'l3s', flag: 'vepa' }])
  driverSuite(`ipvlan ${JSON.stringify(options)}`, { makeDriver: () => ipvlan() as Driver, options })
driverSuite('host', { makeDriver: host, mode: 'host' })
driverSuite('null', { makeDriver: nullDriver })
driverSuite('MockDriver', { makeDriver: () => new MockDriver(), strict: false })
