/** What cannot be a rule is refused one by one, and after each the rules are, byte for byte, what they were. */
import type { Firewall, FirewallChange } from '../../../lib/firewall/contract'
import { openFirewall } from '../../../lib/firewall/select'
import { endpoint, mapping, network } from '../../unit/firewall/objects'
import { Scene } from './scene'

const HOSTILE = '"; flush ruleset; }\n-F #'
const port = (over: object) => ({ addMappings: [mapping({ hostPort: 9, hostPortEnd: 9, ...over })] })
const link = (over: object) => ({ addNetworks: [network({ id: 'n2', link: 'br2', ...over })] })
const REFUSED: [string, FirewallChange][] = [
  ['a hostile link', link({ link: HOSTILE })],
  ['a link that is an option', link({ link: '-F' })],
  ['a wildcard of iptables', link({ link: 'br+' })],
  ['a wildcard of nft', link({ link: 'br*' })],
  ['a hostile trusted link', link({ trustedLinks: ['eth0', 'a\nb'] })],
  ['a hostile endpoint', { addEndpoints: [endpoint({ id: 'e2', addresses: ['10.0.0.1 }'] })] }],
  ['a hostile host address', port({ hostIp: '0.0.0.0; drop' })],
  ['a hostile container address', port({ containerIp: '10.1.0.2\n-F' })],
  ['a hostile source', port({ allowFrom: ['10.0.0.0/8 }; flush ruleset'] })],
  ['port 0', port({ hostPort: 0, hostPortEnd: 0 })],
  ['port 65536', port({ hostPort: 65_535, hostPortEnd: 65_536 })],
  ['a reversed range', port({ hostPort: 9000, hostPortEnd: 8999 })],
  ['a range beyond the container', port({ hostPort: 9000, hostPortEnd: 9010, containerPort: 65_530 })],
  ['an unknown protocol', port({ protocol: 'icmp' })],
  ['an unknown network', port({ networkId: 'nowhere' })],
]

describe.each(['nftables', 'iptables'] as const)('%s', backend => {
  const scene = new Scene()
  let firewall: Firewall

  beforeAll(async () => {
    await scene.build()
    firewall = openFirewall({ backend, stack: scene.at('host') })
    await firewall.start()
    await firewall.apply({ addNetworks: [network()], addEndpoints: [endpoint()], addMappings: [mapping()] })
  })
  afterAll(async () => {
    await firewall.stop({ remove: true })
    await scene.close()
  })
  /** Without counters and times, which are not rules. */
  const rules = () =>
    (backend === 'nftables'
      ? (scene.run('host', 'nft', '-s', 'list', 'ruleset') ?? '')
      : `${scene.run('host', 'iptables-save')}${scene.run('host', 'ip6tables-save')}`
    ).replace(/^#.*\n|\[\d+:\d+\]/gm, '')

  test.each(REFUSED)('%s', async (_what, change) => {
    const before = rules()
    const state = firewall.state()
    expect(before).toContain(mapping().containerIp)
    await expect(firewall.apply(change)).rejects.toMatchObject({ name: 'CnmError' })
    expect(rules()).toBe(before)
    expect(firewall.state()).toEqual(state)
  })
})
