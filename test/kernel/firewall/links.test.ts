/** `--link` on a network that keeps its endpoints apart: the exposed ports of the one that is linked to, for the one that links. */
import type { Stack } from 'libcnm'
import { bare, hostForEach } from '../../support/host'

const host = hostForEach()
const stacks: Stack[] = []
afterEach(() => {
  for (const stack of stacks.splice(0)) stack.close()
})
/** Milliseconds for what should be dropped. */
const SHORT = 300
/** Milliseconds. By iptables a change is several processes. */
const PATIENCE = 120_000

test.each([
  { firewall: 'nftables' as const, bridged: false },
  { firewall: 'nftables' as const, bridged: true },
  { firewall: 'iptables' as const, bridged: false },
  { firewall: 'iptables' as const, bridged: true },
])(
  'by $firewall, br_netfilter $bridged',
  async ({ firewall, bridged }) => {
    const h = host()
    for (const key of ['net/bridge/bridge-nf-call-iptables', 'net/bridge/bridge-nf-call-ip6tables'])
      if (h.host.sysctl(key) !== undefined) h.host.setSysctls({ [key]: bridged ? '1' : '0' })
    let controller = await h.open({ firewall, dataDir: h.dataDir })
    await controller.createNetwork({
      name: 'web',
      options: { icc: false },
      ipam: { config: [{ subnet: '10.77.1.0/24' }] },
    })
    const join = async (name: string, more: object = {}) => {
      const sandbox = await controller.createSandbox({ containerId: name, files: false, resolver: false })
      const endpoint = await controller.network('web').createEndpoint({ name, ...more })
      await endpoint.join(sandbox)
      const stack = await h.kernel.open(sandbox.key) // which outlives the controller
      stacks.push(stack)
      for (const port of [80, 81]) await h.serve(stack, port)
      return { stack, address: bare(endpoint.ipv4), endpoint, sandbox }
    }
    // The one that links may come first or last.
    const early = await join('early', { links: { db: 'db' } })
    const db = await join('db', { exposed: ['80/tcp'] })
    const late = await join('late', { links: { store: 'db' } })
    const stranger = await join('stranger')

    const asks = async () => ({
      early: await h.tcp(early.stack, db.address, 80),
      late: await h.tcp(late.stack, db.address, 80),
      ...Object.fromEntries(
        await Promise.all(
          (
            [
              ['not exposed', () => h.tcp(early.stack, db.address, 81, SHORT)],
              ['another protocol', () => h.udp(early.stack, db.address, 80, SHORT)],
              ['back', () => h.tcp(db.stack, early.address, 80, SHORT)],
              ['a stranger', () => h.tcp(stranger.stack, db.address, 80, SHORT)],
              ['to a stranger', () => h.tcp(early.stack, stranger.address, 80, SHORT)],
            ] as const
          ).map(async ([what, ask]) => [what, await ask()]),
        ),
      ),
    })
    const closed = {
      'not exposed': 'closed',
      'another protocol': 'closed',
      back: 'closed',
      'a stranger': 'closed',
      'to a stranger': 'closed',
    }
    expect(await asks()).toEqual({ early: early.address, late: late.address, ...closed })

    await late.endpoint.leave()
    expect(await h.tcp(early.stack, db.address, 80)).toBe(early.address)
    await late.endpoint.join(late.sandbox)
    expect(await h.tcp(late.stack, db.address, 80)).toBe(late.address)

    // Over a restart, and until the one that is linked to goes.
    await controller.close()
    controller = await h.open({ firewall, dataDir: h.dataDir })
    expect(await controller.check()).toEqual([])
    expect(await h.tcp(early.stack, db.address, 80)).toBe(early.address)
    await controller.network('web').endpoint('db').leave()
    const key = `net/ipv4/conf/${controller.network('web').link}/proxy_arp_pvlan`
    expect(h.host.sysctl(key)).toBe('0')
    await controller.network('web').endpoint('db').join(controller.sandbox('db'))
    expect(h.host.sysctl(key)).toBe('1')
    expect(await h.tcp(early.stack, db.address, 80)).toBe(early.address)

    for (const sandbox of controller.sandboxes()) await sandbox.delete()
    for (const endpoint of controller.network('web').endpoints()) await endpoint.delete()
    await controller.network('web').delete()
    await controller.close({ remove: true })
  },
  PATIENCE,
)
