import { atomically } from '../../../lib/base/undo'
import { CnmError } from '../../../lib/base/errors'
import { anonymous, faultSweep, type MockKernel } from '../../../lib/testing'

/** Makes a bridge with an address, one change at a time, the careful way. */
const careful = async (kernel: MockKernel) => {
  const host = await kernel.open()
  return () =>
    atomically(async undo => {
      undo.push('remove the bridge', () => host.apply([{ op: 'removeLink', link: 'br0', ifExists: true }]))
      await host.apply([{ op: 'addLink', link: { kind: 'bridge', name: 'br0' } }])
      await host.apply([
        { op: 'addAddress', link: 'br0', address: '10.0.0.1/24' },
        { op: 'setLink', link: 'br0', up: true },
      ])
    })
}

describe('faultSweep', () => {
  test('passes an operation that is whole or nothing, and tells how many calls were failed', async () => {
    expect(await faultSweep(careful)).toEqual({ calls: 3, rounds: 3 })
    expect(await faultSweep(careful, { exhaustive: true, errnos: ['EIO', 'ENOMEM'] })).toEqual({
      calls: 3,
      rounds: 6,
    })
  })

  test('catches what is left behind, and names the call and the difference', async () => {
    const careless = async (kernel: MockKernel) => {
      const host = await kernel.open()
      return () =>
        host.apply([
          { op: 'addLink', link: { kind: 'bridge', name: 'br0', up: true } },
          { op: 'addAddress', link: 'br0', address: '10.0.0.1/24' },
        ])
    }
    await expect(faultSweep(careless)).rejects.toThrow(
      /call 2 of 2 failing \(addAddress .*the state is not the one before/s,
    )
    await expect(faultSweep(careless)).rejects.toThrow(/^\+ namespaces\[own\]\.links.*"name":"br0"/m)
  })

  test('catches a swallowed failure unless it may be absorbed', async () => {
    const lax = async (kernel: MockKernel) => {
      const host = await kernel.open()
      return async () => {
        await host.links().catch(() => [])
      }
    }
    await expect(faultSweep(lax)).rejects.toThrow('the operation succeeded with kernel call 1 of 1')
    await expect(faultSweep(lax, { mayAbsorb: call => call.op === 'links' })).resolves.toEqual({
      calls: 1,
      rounds: 1,
    })
    await expect(faultSweep(lax, { skip: () => true })).resolves.toEqual({ calls: 1, rounds: 0 })
  })

  test('catches an error of another class', async () => {
    const rough = async (kernel: MockKernel) => {
      const host = await kernel.open()
      return () =>
        host.links().catch(() => {
          throw new Error('oops')
        })
    }
    await expect(faultSweep(rough)).rejects.toThrow('rejected with Error: oops, which is no CnmError')
  })

  test('catches a retry that fails, and one that ends elsewhere', async () => {
    const once = async (kernel: MockKernel) => {
      const host = await kernel.open()
      let tried = false
      return async () => {
        if (tried) throw new CnmError('ERR_INTERNAL', 'only once')
        tried = true
        await host.links()
      }
    }
    await expect(faultSweep(once)).rejects.toThrow('the retry failed: CnmError: only once')
    const drifting = async (kernel: MockKernel) => {
      const host = await kernel.open()
      let n = 0
      return async () => {
        n++
        await host.links()
        await host.apply([{ op: 'addLink', link: { kind: 'bridge', name: `br${n}` } }])
      }
    }
    await expect(faultSweep(drifting)).rejects.toThrow('the retry led to another state')
  })

  test('catches a rollback that fails', async () => {
    const hopeless = async (kernel: MockKernel) => {
      const host = await kernel.open()
      return () =>
        atomically(async undo => {
          undo.push('never', () => Promise.reject(new Error('cannot be undone')))
          await host.links()
        })
    }
    await expect(faultSweep(hopeless)).rejects.toThrow(/the rollback failed: .*cannot be undone/s)
  })

  test('a bridge that once had a port is as good as a new one', () =>
    faultSweep(async kernel => {
      const host = await kernel.open()
      await host.apply([{ op: 'addLink', link: { kind: 'bridge', name: 'br0', mac: '02:00:00:00:00:01' } }])
      return () =>
        atomically(async undo => {
          undo.push('remove the veth', () => host.apply([{ op: 'removeLink', link: 'va', ifExists: true }]))
          await host.apply([{ op: 'addLink', link: { kind: 'veth', name: 'va', peer: { name: 'vb' } } }])
          await host.apply([{ op: 'setLink', link: 'va', master: 'br0' }])
          await host.apply([{ op: 'setLink', link: 'br0', up: true }])
        })
    }))

  test('fails only what the operation calls, whatever is at work in the background', async () => {
    const watched = async (kernel: MockKernel) => {
      const host = await kernel.open()
      const stopped = new AbortController()
      void (async () => {
        while (!stopped.signal.aborted) {
          await host.links()
          await new Promise(resolve => setImmediate(resolve))
        }
      })()
      // An event that the operation brings about is background, too, and so is a timer that it sets off.
      host.watch(['link'], () => void setTimeout(() => void host.links(), 0))
      const run = await careful(kernel)
      return { run, close: () => stopped.abort() }
    }
    expect(await faultSweep(watched)).toEqual({ calls: 3, rounds: 3 })
  })

  test('ends what the scene began', async () => {
    let closed = 0
    await faultSweep(async kernel => {
      const host = await kernel.open()
      return { run: () => host.links(), close: () => closed++ }
    })
    expect(closed).toBe(2)
  })

  test('the anonymous form knows no random names, addresses and MACs', () => {
    expect(anonymous({ b: ['veth1234567', 'br0'], a: '02:00:00:00:00:01', c: 'fe80::1:2/64', d: 1 })).toEqual(
      {
        a: '#',
        b: ['br0', 'veth#'],
        c: '#/64',
        d: 1,
      },
    )
  })
})
