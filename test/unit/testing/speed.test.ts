import { MockKernel } from 'libcnm/testing'

describe('speed', () => {
  test('a thousand sandboxes on one bridge take well under a second', async () => {
    const kernel = new MockKernel()
    const host = await kernel.open()
    await host.apply([
      { op: 'addLink', link: { kind: 'bridge', name: 'br0', up: true } },
      { op: 'addAddress', link: 'br0', address: '10.0.0.1/16' },
    ])
    const start = process.cpuUsage()
    for (let i = 0; i < 1000; i++) {
      const netns = await kernel.create(`/run/netns/${i}`)
      await kernel.transact([
        {
          stack: host,
          changes: [
            {
              op: 'addLink',
              link: {
                kind: 'veth',
                name: `v${i}`,
                master: 'br0',
                up: true,
                peer: { name: 'eth0', netns, up: true },
              },
            },
          ],
        },
        {
          stack: netns,
          changes: [
            { op: 'addAddress', link: 'eth0', address: `10.0.${1 + (i >> 8)}.${i & 255}/16` },
            { op: 'addRoute', route: { destination: '0.0.0.0/0', gateway: '10.0.0.1' } },
          ],
        },
      ])
      netns.close()
    }
    for (let i = 0; i < 1000; i++) await kernel.remove(`/run/netns/${i}`)
    const { user, system } = process.cpuUsage(start)
    const ms = (user + system) / 1000
    expect((await host.links()).map(link => link.name)).toEqual(['lo', 'eth0', 'br0'])
    if (process.env.SHOW_SPEED) console.log(`${ms.toFixed(0)} ms`)
    // of processor time, and loose: the machine may be busy
    expect(ms).toBeLessThan(10_000)
  })
})
