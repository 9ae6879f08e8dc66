/** Published ports: the allocator by itself, and reservations on a host of its own. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { LinuxKernel } from '../../lib/kernel/linux'
import { PortAllocator } from '../../lib/ports/allocator'
import type { PublishTarget } from '../../lib/ports/contract'
import { Publisher } from '../../lib/ports/publisher'
import { parsePort } from '../../lib/ports/spec'

/** Milliseconds of each of `rounds` calls: the median. */
async function median(
  rounds: number,
  act: () => Promise<void> | void,
  after?: () => Promise<void> | void,
): Promise<number> {
  const times: number[] = []
  for (let i = 0; i < rounds; i++) {
    const start = performance.now()
    await act()
    times.push(performance.now() - start)
    await after?.()
  }
  return times.sort((a, b) => a - b)[rounds >> 1]!
}

const line = (what: string, ms: number) =>
  console.log(`${what.padEnd(64)} ${ms < 1 ? `${(ms * 1000).toFixed(2)} us` : `${ms.toFixed(2)} ms`}`)

async function allocator(): Promise<void> {
  const both = ['0.0.0.0', '::']
  const dynamic = { first: 32768, last: 60999 }
  const batch = 20_000
  for (const taken of [0, 1_000, 20_000]) {
    const ports = new PortAllocator()
    for (let i = 0; i < taken; i++) ports.choose(both, 'tcp', dynamic)
    const single = { first: 80, last: 80 }
    const exact = await median(7, () => {
      for (let i = 0; i < batch; i++) {
        ports.take(both, 'tcp', single)
        for (const address of both) ports.free(address, 'tcp', single)
      }
    })
    const chosen = await median(7, () => {
      for (let i = 0; i < batch; i++) {
        const port = ports.choose(both, 'tcp', dynamic)!
        for (const address of both) ports.free(address, 'tcp', { first: port, last: port })
      }
    })
    line(`allocator, ${taken} taken: take + free one port, both families`, exact / batch)
    line(`allocator, ${taken} taken: choose + free one port, both families`, chosen / batch)
    console.log(
      `  = ${Math.round((2 * batch) / exact) * 1000} and ${Math.round((2 * batch) / chosen) * 1000} operations a second`,
    )
  }
  const ports = new PortAllocator()
  const range = { first: 20_000, last: 29_999 }
  const long = await median(7, () => {
    for (let i = 0; i < 1000; i++) {
      ports.take(both, 'tcp', range)
      for (const address of both) ports.free(address, 'tcp', range)
    }
  })
  line('allocator: take + free 10,000 ports, both families', long / 1000)
}

async function reservations(): Promise<void> {
  const kernel = new LinuxKernel()
  const directory = await mkdtemp(join(tmpdir(), 'cnm-bench-ports-'))
  const path = join(directory, 'host')
  const stack = await kernel.create(path)
  const publisher = new Publisher({ stack, backend: 'nftables' })
  const target: PublishTarget = {
    networkId: 'n',
    endpointId: 'e',
    ipv4: '10.0.0.2',
    ipv6: 'fd00::2',
    modes: { 4: 'nat', 6: 'nat' },
  }
  try {
    for (const held of [0, 1_000, 4_000]) {
      for (let port = 10_000; port < 10_000 + held; port++)
        await publisher.reserve({ ...target, endpointId: `held${held}` }, [parsePort(`0.0.0.0:${port}:80`)])
      for (const [what, spec] of [
        ['one port, both families', '8080:80'],
        ['one chosen port, both families', '80'],
        ['100 ports, both families', '9000-9099:100-199'],
        ['10,000 ports, both families', '20000-29999:20000-29999'],
      ] as const) {
        let ports = await publisher.reserve(target, [parsePort(spec)]) // warm
        await publisher.release(ports)
        const reserve = await median(
          31,
          async () => {
            ports = await publisher.reserve(target, [parsePort(spec)])
          },
          () => publisher.release(ports),
        )
        line(`reserve ${what}; ${held} held`, reserve)
      }
      await publisher.close()
    }
  } finally {
    await publisher.close()
    stack.close()
    await kernel.remove(path)
    await rm(directory, { recursive: true })
  }
}

export async function run(): Promise<void> {
  await allocator()
  await reservations()
}
