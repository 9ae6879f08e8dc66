/**
 * What `Controller.open` on existing state costs, by networks and joined endpoints, on the real kernel in a namespace of its
 * own, in a process that has done it before and in a fresh one (modules loaded already, and from its very start); that it
 * changes nothing which is right; and what durability adds to a join. RESTORE_CASES: `NETWORKS:ENDPOINTS,...` in
 * ascending order (each is built upon the one before; 1000:5000 takes long to build and is there when asked for);
 * ROUNDS: opens per case; JOINS: joins measured; STORE_DIR: the disk.
 */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Controller, LinuxKernel } from '../../lib'
import type { KernelEvent } from '../../lib/kernel/kernel'

const CASES = (process.env.RESTORE_CASES ?? '10:1,10:1000,100:1000,1000:1000')
  .split(',')
  .map(text => text.split(':').map(Number) as [number, number])
const ROUNDS = Number(process.env.ROUNDS ?? 3)
const JOINS = Number(process.env.JOINS ?? 200)
/** Namespaces; with more endpoints than these several share one, each on another network. */
const SANDBOXES = 1000
/** Callers at once while the state is built. */
const WIDTH = 16

const subnet = (n: number) => `10.${64 + (n >> 6)}.${(n & 63) << 2}.0/22`

async function crowd(count: number, body: (n: number) => Promise<unknown>): Promise<void> {
  let next = 0
  await Promise.all(
    Array.from({ length: WIDTH }, async () => {
      while (next < count) await body(next++)
    }),
  )
}

export async function run(): Promise<void> {
  const directory = mkdtempSync(join(process.env.STORE_DIR ?? tmpdir(), 'libcnm-bench-'))
  const kernel = new LinuxKernel()
  const hostPath = join(directory, 'host')
  const host = await kernel.create(hostPath)
  const options = { host: hostPath, runDir: join(directory, 'run'), dataDir: join(directory, 'data') }
  let controller = await Controller.open(options)
  try {
    console.log('             open, ms, least of several         changes seen')
    console.log('networks  joined    again   first   with the program   by the kernel')
    for (const [networks, endpoints] of CASES) {
      await build(controller, networks, endpoints)
      let best = Number.POSITIVE_INFINITY
      await new Promise(resolve => setTimeout(resolve, 2000)) // milliseconds: new ports come up, the kernel tells so
      let changes = 0
      for (let round = 0; round < ROUNDS; round++) {
        await controller.settle()
        await controller.close()
        const seen: KernelEvent[] = []
        const watch = host.watch(['link', 'address', 'route', 'rule', 'nft'], event => seen.push(event))
        const start = performance.now()
        controller = await Controller.open(options)
        best = Math.min(best, performance.now() - start)
        await new Promise(resolve => setTimeout(resolve, 100)) // milliseconds for the last events
        watch.close()
        changes += seen.filter(event => !isProbe(event)).length
      }
      await controller.settle()
      await controller.close()
      const fresh = Array.from({ length: ROUNDS }, () => openInFreshProcess(options))
      controller = await Controller.open(options)
      const least = (key: 'open' | 'whole') => Math.min(...fresh.map(each => each[key])).toFixed(0)
      console.log(
        `${String(networks).padStart(8)}${String(endpoints).padStart(8)}${best.toFixed(0).padStart(9)}${least('open').padStart(8)}${least('whole').padStart(19)}${String(changes).padStart(16)}`,
      )
    }
    await removeAll(controller)
    await controller.close()
    await durability(directory, hostPath)
  } finally {
    await controller.close()
    for (const path of await kernel.list(join(directory, 'run', 'netns'))) await kernel.remove(path)
    host.close()
    await kernel.remove(hostPath)
    rmSync(directory, { recursive: true, force: true })
  }
}

/** Milliseconds of the first open of a process, and with the start of the process and the loading of all modules. */
function openInFreshProcess(options: object): { open: number; whole: number } {
  const script = `
    const { Controller } = require(process.argv[1])
    const options = JSON.parse(process.argv[2])
    const start = performance.now()
    Controller.open(options).then(async controller => {
      const end = performance.now()
      console.log(JSON.stringify({ open: end - start, whole: end }))
      await controller.close()
    })`
  const library = join(__dirname, '../../lib')
  return JSON.parse(
    execFileSync(process.execPath, ['-e', script, library, JSON.stringify(options)], { encoding: 'utf8' }),
  )
}

/** The table that is made and deleted at once, to learn the process id that the kernel sees. */
const isProbe = (event: KernelEvent): boolean =>
  event.topic === 'nft' && (event.object === 'generation' || event.table?.includes('-probe-') === true)

async function build(controller: Controller, networks: number, endpoints: number): Promise<void> {
  const before = controller.networks().length
  await crowd(networks - before, n =>
    controller.createNetwork({
      name: `n${before + n}`,
      ipam: { config: [{ subnet: subnet(before + n) }] },
    }),
  )
  const sandboxes = controller.sandboxes().length
  await crowd(Math.min(SANDBOXES, endpoints) - sandboxes, n =>
    controller.createSandbox({ containerId: `c${sandboxes + n}` }),
  )
  const joined = controller.networks().reduce((sum, network) => sum + network.endpoints().length, 0)
  await crowd(endpoints - joined, async n => {
    const [index, lap] = [(joined + n) % SANDBOXES, Math.floor((joined + n) / SANDBOXES)]
    const network = controller.network(`n${(index + lap) % Math.min(networks, 10)}`)
    const endpoint = await network.createEndpoint({
      name: `e${joined + n}`,
      ports: lap === 0 && index % 10 === 0 ? [`${20_000 + index}:80`] : [],
    })
    await endpoint.join(controller.sandbox(`c${index}`))
  })
}

async function removeAll(controller: Controller): Promise<void> {
  const [sandboxes, networks] = [controller.sandboxes(), controller.networks()]
  await crowd(sandboxes.length, async n => sandboxes[n]?.delete({ force: true }))
  await controller.settle()
  await crowd(networks.length, async n => networks[n]?.delete())
}

/** The same joins by two controllers in turn, one with a store on the disk. */
async function durability(directory: string, host: string): Promise<void> {
  const open = (name: string, dataDir?: string) =>
    Controller.open({ name, host, runDir: join(directory, name), dataDir })
  const controllers = [await open('memory'), await open('durable', join(directory, 'durable-data'))] as const
  const times: [number[], number[]] = [[], []]
  try {
    const networks = await Promise.all(
      controllers.map((each, n) =>
        each.createNetwork({ name: 'web', ipam: { config: [{ subnet: `10.${50 + n}.0.0/16` }] } }),
      ),
    )
    for (let n = 0; n < JOINS; n++)
      for (const which of [0, 1] as const) {
        const controller = controllers[which]
        const start = performance.now()
        const sandbox = await controller.createSandbox({ containerId: `c${n}` })
        const endpoint = await (networks[which] as (typeof networks)[number]).createEndpoint({
          name: `c${n}`,
        })
        await endpoint.join(sandbox)
        times[which].push(performance.now() - start)
        await sandbox.delete({ force: true })
      }
  } finally {
    for (const each of controllers) {
      await removeAll(each)
      await each.close()
    }
  }
  const median = (list: number[]) => list.sort((a, b) => a - b)[list.length >> 1] as number
  const [memory, durable] = [median(times[0]), median(times[1])]
  console.log(
    `createSandbox + createEndpoint + join: ${memory.toFixed(2)} ms with the memory store, ${durable.toFixed(2)} ms durable: ${((durable / memory - 1) * 100).toFixed(1)} % more`,
  )
}
