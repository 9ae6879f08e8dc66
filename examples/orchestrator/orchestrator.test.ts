/** The play, held to what it promises. On the real kernel: it needs root. */
import { play } from './play'

jest.setTimeout(180_000)

test.each(['etcd', 'memory'] as const)(
  'with %s: replicas are spread, an update fails no request, a lost host is made up for',
  async store => {
    const { roll, recovered, tasks, pictures } = await play(() => {}, store)
    expect(tasks.deployed.map(({ host, version }) => `${host} ${version}`).sort()).toEqual([
      'host1 v1',
      'host2 v1',
      'host3 v1',
    ])
    expect(pictures).toHaveLength(3)
    for (const { name, host } of tasks.deployed) expect(pictures[Number(host.slice(-1)) - 1]).toContain(name)

    expect(tasks.rolled.map(({ version }) => version)).toEqual(['v2', 'v2', 'v2'])
    expect(roll.failures).toEqual([])
    expect(Object.keys(roll.answers).sort()).toEqual(['v1', 'v2'])

    expect(tasks.recovered).toHaveLength(3)
    expect(tasks.recovered.map(({ host }) => host)).not.toContain('host3')
    expect(recovered.failures).toEqual([])
    expect(recovered.answers.v2).toBeGreaterThan(0)

    expect(tasks.returned).toHaveLength(4)
    expect(tasks.returned.map(({ host }) => host)).toContain('host3')
  },
)
