/** The drivers on the real kernel, by the suite that authors of drivers get. */
import { bridge, type Driver, host, macvlan, nullDriver } from 'libcnm'
import { driverSuite, MockDriver } from 'libcnm/testing'
import { makeHost } from '../../support/host'

const openHost = async () => {
  const made = await makeHost()
  return { kernel: made.kernel, host: made.path, runDir: made.runDir, close: () => made.close() }
}

driverSuite('bridge', { makeDriver: () => bridge() as Driver, openHost })
driverSuite('bridge, isolated ports', {
  makeDriver: () => bridge() as Driver,
  options: { icc: false, mtu: 1400 },
  openHost,
})
driverSuite('macvlan, reached by the host', {
  makeDriver: () => macvlan() as Driver,
  options: { parent: 'uplink', hostAccess: true },
  openHost,
})
driverSuite('host', { makeDriver: host, mode: 'host', openHost })
driverSuite('null', { makeDriver: nullDriver, openHost })
driverSuite('MockDriver', { makeDriver: () => new MockDriver(), strict: false, openHost })
