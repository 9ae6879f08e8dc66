/**
 * What `repair()` costs when the bridge of a network with many endpoints was deleted, and when the host's ends of all their
 * pairs were: on the real kernel in a namespace of its own. The cost of an endpoint should not grow with their number.
 * REPAIR_CASES: endpoints, in ascending order.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Controller, LinuxKernel, type Network, type Stack } from '../../lib'

const CASES = (process.env.REPAIR_CASES ?? '125,250,500,1000').split(',').map(Number)
/** Callers at once while the state is built. */
const WIDTH = 16

export async function run(): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'libcnm-bench-'))
  const kernel = new LinuxKernel()
  const hostPath = join(directory, 'host')
  const host = await kernel.create(hostPath)
  const controller = await Controller.open({ host: hostPath, runDir: join(directory, 'run') })
  try {
    const network = await controller.createNetwork({
      name: 'web',
      ipam: { config: [{ subnet: '10.64.0.0/16' }] },
      options: { icc: false },
    })
    console.log('endpoints   bridge lost: ms, per endpoint   pairs lost: ms, per endpoint')
    for (const endpoints of CASES) {
      await build(controller, network, endpoints)
      await host.apply([{ op: 'removeLink', link: network.link as string }])
      const bridge = await mend(controller)
      await removePairs(host)
      const pairs = await mend(controller)
      const shown = (ms: number) => `${ms.toFixed(0).padStart(20)}${(ms / endpoints).toFixed(2).padStart(10)}`
      console.log(`${String(endpoints).padStart(9)}${shown(bridge)}${shown(pairs)}`)
    }
  } finally {
    await controller.close()
    for (const path of await kernel.list(join(directory, 'run', 'netns'))) await kernel.remove(path)
    host.close()
    await kernel.remove(hostPath)
    rmSync(directory, { recursive: true, force: true })
  }
}

async function build(controller: Controller, network: Network, endpoints: number): Promise<void> {
  let next = network.endpoints().length
  await Promise.all(
    Array.from({ length: WIDTH }, async () => {
      while (next < endpoints) {
        const name = `c${next++}`
        const sandbox = await controller.createSandbox({ containerId: name, files: false })
        const endpoint = await network.createEndpoint({ name })
        await endpoint.join(sandbox)
      }
    }),
  )
}

/** In groups, as the kernel likes it; their other ends go with them. */
async function removePairs(host: Stack): Promise<void> {
  const names = (await host.links()).filter(({ kind }) => kind === 'veth').map(({ name }) => name)
  for (let at = 0; at < names.length; at += 32)
    await host.apply(names.slice(at, at + 32).map(link => ({ op: 'removeLink', link }) as const))
}

async function mend(controller: Controller): Promise<number> {
  const start = performance.now()
  const found = await controller.repair()
  const took = performance.now() - start
  const left = await controller.check()
  if (found.length === 0 || left.length) throw new Error(`${found.length} found, ${left.length} left`)
  return took
}
