/** What somebody did to our rules while no notification came through: `check` finds it, `repair` puts it right, traffic returns. */
import { LinuxKernel, type Stack } from 'libcnm'
import { CLIENT, hostForEach, stackOf, UPLINK } from '../../support/host'

const host = hostForEach()
/** Milliseconds. By iptables a change is several processes. */
const PATIENCE = 120_000

/** Of whose changes of the ruleset nobody is told, as if the notifications were lost: so only `check` can find out. */
class Deaf extends LinuxKernel {
  override async open(path?: string): Promise<Stack> {
    const stack = await super.open(path)
    const watch = stack.watch.bind(stack)
    stack.watch = (topics, listener) => (topics.includes('nft') ? { close() {} } : watch(topics, listener))
    return stack
  }
}

const IPTABLES = (...parameters: string[]) =>
  `for tool in iptables ip6tables; do $tool ${parameters.join(' ')}; done`
const BREAKS: Record<'nftables' | 'iptables', [what: string, script: string][]> = {
  nftables: [
    ['the whole ruleset flushed', 'nft flush ruleset'],
    ['the table deleted', 'nft delete table inet libcnm'],
    ['a chain emptied', 'nft flush chain inet libcnm publish4'],
    ['an element deleted', "nft delete element inet libcnm ports4 '{ tcp . 8080 }'"],
    ['a set emptied', 'nft flush map inet libcnm ports4'],
    [
      'an element that leads elsewhere',
      "nft 'delete element inet libcnm ports4 { tcp . 8080 }; add element inet libcnm ports4 { tcp . 8080 : 10.77.1.99 . 80 }'",
    ],
  ],
  iptables: [
    ['the whole ruleset flushed', 'nft flush ruleset'],
    ['all chains emptied', `${IPTABLES('-F')}; ${IPTABLES('-t nat -F')}`],
    ['a chain emptied', IPTABLES('-t nat -F DOCKER')],
    [
      'a rule deleted',
      'iptables -t nat -D DOCKER -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.77.1.2:80',
    ],
    ['a jump deleted', IPTABLES('-t nat -D PREROUTING 1')],
  ],
}

describe.each(['nftables', 'iptables'] as const)('%s', backend => {
  test(
    'each is found, named and mended',
    async () => {
      const h = host()
      const controller = await h.open({ firewall: backend, kernel: new Deaf() })
      const network = await controller.createNetwork({
        name: 'web',
        ipam: { config: [{ subnet: '10.77.1.0/24' }, { subnet: 'fd77:1::/64' }] },
      })
      const sandbox = await controller.createSandbox({ containerId: 'c1', files: false, resolver: false })
      const endpoint = await network.createEndpoint({ name: 'c1', ports: ['8080:80'] })
      await endpoint.join(sandbox)
      await h.serve(stackOf(sandbox), 80)
      expect(await h.tcp(h.client, UPLINK[4], 8080)).toBe(CLIENT[4])
      expect(await controller.check()).toEqual([])
      for (const [what, script] of BREAKS[backend]) {
        h.run(h.host, 'sh', '-ec', script)
        const found = await controller.check()
        expect([what, new Set(found.map(({ kind, problem }) => `${kind} ${problem}`))]).toEqual([
          what,
          new Set(['firewall missing']),
        ])
        expect([what, await h.tcp(h.client, UPLINK[4], 8080, 300)]).toEqual([what, 'closed'])
        await controller.repair()
        expect([what, await controller.check()]).toEqual([what, []])
        expect([what, await h.tcp(h.client, UPLINK[4], 8080)]).toEqual([what, CLIENT[4]])
      }
      await controller.close({ remove: true })
    },
    PATIENCE,
  )
})
