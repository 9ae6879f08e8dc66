/**
 * A long life on the real kernel, in a namespace of its own: SANDBOXES sandboxes on several networks made by 32 callers at once
 * and removed, then CYCLES times create, join, leave, delete, in several rounds. Fails when descriptors grow from round to round, or memory
 * by more than a tenth and 16 MiB after the first rounds.
 */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Controller, LinuxKernel, type Network } from '../../lib'

const CYCLES = Number(process.env.CYCLES ?? 10_000)
const SANDBOXES = Number(process.env.SANDBOXES ?? 1_000)
const WIDTH = 32
const ROUNDS = 10

async function crowd(count: number, body: (n: number) => Promise<unknown>): Promise<void> {
  let next = 0
  await Promise.all(
    Array.from({ length: WIDTH }, async () => {
      while (next < count) await body(next++)
    }),
  )
}

async function live(controller: Controller, network: Network, name: string): Promise<void> {
  const sandbox = await controller.createSandbox({ containerId: name })
  const endpoint = await network.createEndpoint({ name })
  await endpoint.join(sandbox)
}

async function cycle(controller: Controller, network: Network, name: string): Promise<void> {
  await live(controller, network, name)
  await network.endpoint(name).leave()
  await network.endpoint(name).delete()
  await controller.sandbox(name).delete()
}

/** Bytes in use once everything that can be is collected, and open descriptors. */
async function weigh(): Promise<{ heap: number; rss: number; descriptors: number }> {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  for (let turn = 0; turn < 3; turn++) {
    await new Promise(resolve => setTimeout(resolve, 50)) // milliseconds: handles close at the end of a turn
    collect()
  }
  const { heapUsed, rss } = process.memoryUsage()
  return { heap: heapUsed, rss, descriptors: readdirSync('/proc/self/fd').length }
}

export async function run(): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'libcnm-soak-'))
  const kernel = new LinuxKernel()
  const hostPath = join(directory, 'host')
  const host = await kernel.create(hostPath)
  const runDir = join(directory, 'run')
  const controller = await Controller.open({ host: hostPath, runDir, dataDir: join(directory, 'data') })
  try {
    const networks = await Promise.all(
      [0, 1, 2, 3].map(n =>
        controller.createNetwork({ name: `n${n}`, ipam: { config: [{ subnet: `10.${80 + n}.0.0/16` }] } }),
      ),
    )
    const at = (n: number) => networks[n % networks.length] as Network
    let start = performance.now()
    await crowd(SANDBOXES, n => live(controller, at(n), `c${n}`))
    const made = performance.now() - start
    const addresses = new Set(networks.flatMap(each => each.endpoints().map(({ ipv4 }) => ipv4)))
    const differences = await controller.check()
    start = performance.now()
    await crowd(SANDBOXES, n => controller.sandbox(`c${n}`).delete({ force: true }))
    await controller.settle()
    console.log(
      `${SANDBOXES} sandboxes, ${WIDTH} callers: made in ${(made / 1000).toFixed(1)} s, ${addresses.size} addresses, ${differences.length} differences, removed in ${((performance.now() - start) / 1000).toFixed(1)} s`,
    )
    if (addresses.size !== SANDBOXES || differences.length) throw new Error('they are not as they should be')
    await soak(controller, at)
    const left = (await host.links()).filter(({ kind }) => kind === 'veth').length
    if (left || (await kernel.list(join(runDir, 'netns'))).length) throw new Error(`${left} links are left`)
  } finally {
    await controller.close({ remove: true })
    host.close()
    await kernel.remove(hostPath)
    rmSync(directory, { recursive: true, force: true })
  }
}

async function soak(controller: Controller, at: (n: number) => Network): Promise<void> {
  const weights: Awaited<ReturnType<typeof weigh>>[] = []
  const each = Math.ceil(CYCLES / ROUNDS)
  console.log('cycles    heap MiB   resident MiB   descriptors   ms per cycle')
  for (let round = 1; round <= ROUNDS; round++) {
    const start = performance.now()
    await crowd(each, n => cycle(controller, at(n), `s${n}`))
    const took = performance.now() - start
    await controller.settle()
    const weight = await weigh()
    weights.push(weight)
    const mib = (bytes: number) => (bytes / 2 ** 20).toFixed(1)
    console.log(
      `${String(round * each).padStart(6)}${mib(weight.heap).padStart(12)}${mib(weight.rss).padStart(15)}${String(weight.descriptors).padStart(14)}${(took / each).toFixed(2).padStart(15)}`,
    )
  }
  const [early, last] = [weights[2], weights.at(-1)]
  if (!early || !last) return
  if (last.descriptors > early.descriptors) throw new Error('descriptors grow')
  if (last.heap > early.heap * 1.1 + (16 << 20)) throw new Error('memory grows')
}
