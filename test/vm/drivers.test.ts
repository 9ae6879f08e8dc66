/** macvlan and ipvlan on a kernel that has every kind of link, by the suite that authors of drivers get. */
import { type Driver, ipvlan, macvlan } from 'libcnm'
import { driverSuite } from 'libcnm/testing'
import { makeHost } from '../support/host'

const openHost = async () => {
  const made = await makeHost()
  return { kernel: made.kernel, host: made.path, runDir: made.runDir, close: () => made.close() }
}

const makeMacvlan = () => macvlan() as Driver
const makeIpvlan = () => ipvlan() as Driver

driverSuite('macvlan on a dummy', { makeDriver: makeMacvlan, openHost })
driverSuite('macvlan on a VLAN that it makes, reached by the host', {
  makeDriver: makeMacvlan,
  options: { parent: 'uplink.10', hostAccess: true },
  openHost,
})
for (const mode of ['l2', 'l3', 'l3s'])
  driverSuite(`ipvlan ${mode} on a dummy`, { makeDriver: makeIpvlan, options: { mode }, openHost })
