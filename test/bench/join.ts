/**
 * What a container's network costs: {createSandbox + createEndpoint + join} and {leave + delete + delete}, with 0 to 1,000
 * endpoints present, one at a time and 16 at once, beside a C program that has the kernel do the same by bare rtnetlink on
 * the same bridge in the same minute. And network create and delete.
 */
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Controller, LinuxKernel, type Network } from '../../lib'

const ROUNDS = Number(process.env.ROUNDS ?? 200)
const PRESENT = (process.env.PRESENT ?? '0,100,500,1000').split(',').map(Number)

type Times = { setup: number[]; teardown: number[] }
const quantile = (times: number[], q: number) =>
  [...times].sort((a, b) => a - b)[Math.min(times.length - 1, Math.floor(times.length * q))] as number
const ms = (value: number) => `${value.toFixed(2)} ms`
const pause = (milliseconds: number) => new Promise(resolve => setTimeout(resolve, milliseconds))

let serial = 0
/** A container's network, set up and (after `hold`) torn down. */
async function one(controller: Controller, network: Network, times?: Times): Promise<() => Promise<void>> {
  const name = `c${serial++}`
  const start = performance.now()
  const sandbox = await controller.createSandbox({ containerId: name, ...PLAIN })
  const endpoint = await network.createEndpoint({ name })
  await endpoint.join(sandbox)
  times?.setup.push(performance.now() - start)
  return async () => {
    const begin = performance.now()
    await endpoint.leave()
    await endpoint.delete()
    await sandbox.delete()
    times?.teardown.push(performance.now() - begin)
  }
}

/** Without files and resolver, as the C program has none; FULL=1 measures with them. */
const PLAIN = process.env.FULL ? {} : { files: false, resolver: false }

async function sequential(controller: Controller, network: Network): Promise<Times> {
  const times: Times = { setup: [], teardown: [] }
  for (let n = 0; n < ROUNDS; n++) await (await one(controller, network, times))()
  await controller.settle()
  return times
}

async function parallel(controller: Controller, network: Network): Promise<Times> {
  const times: Times = { setup: [], teardown: [] }
  for (let n = 0; n < ROUNDS; n += 16) {
    const ends = await Promise.all(Array.from({ length: 16 }, () => one(controller, network, times)))
    await Promise.all(ends.map(end => end()))
  }
  await controller.settle()
  return times
}

function bare(program: string, hostPath: string, bridge: string, directory: string): Times {
  const args = [`--net=${hostPath}`, program, bridge, directory, String(ROUNDS), '10.99.200.1', '10.99.0.1']
  return JSON.parse(execFileSync('nsenter', args, { encoding: 'utf8' })) as Times
}

export async function run(): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'libcnm-bench-'))
  const kernel = new LinuxKernel()
  const hostPath = join(directory, 'host')
  const host = await kernel.create(hostPath)
  const program = join(directory, 'bare')
  execFileSync('gcc', ['-O2', '-pthread', '-o', program, join(__dirname, '../../../test/bench/join/bare.c')])
  mkdirSync(join(directory, 'ns'))
  const firewall = (process.env.FIREWALL ?? 'nftables') as 'nftables' | 'none'
  const controller = await Controller.open({
    host: hostPath,
    runDir: join(directory, 'run'),
    firewall,
    dataDir: process.env.DATA ? join(directory, 'data') : undefined,
  })
  try {
    console.log(
      `firewall ${firewall}; ${ROUNDS} rounds; medians, p90 in brackets; ratio to bare rtnetlink of the same run`,
    )
    const network = await controller.createNetwork({
      name: 'bench',
      ipam: { config: [{ subnet: '10.99.0.0/16' }] },
    })
    const ends: (() => Promise<void>)[] = []
    await (await one(controller, network))() // warm-up
    for (const present of PRESENT) {
      while (ends.length < present) ends.push(await one(controller, network))
      const raw = bare(program, hostPath, network.link as string, join(directory, 'ns'))
      await pause(300)
      const single = await sequential(controller, network)
      await pause(300)
      const many = await parallel(controller, network)
      await pause(300)
      const row = (what: string, times: number[], base?: number[]) =>
        `  ${what.padEnd(28)} ${ms(quantile(times, 0.5)).padStart(9)} (${ms(quantile(times, 0.9))})${base ? `  ${(quantile(times, 0.5) / quantile(base, 0.5)).toFixed(2)} x bare` : ''}`
      console.log(`${present} endpoints present`)
      console.log(row('bare kernel, set-up', raw.setup))
      console.log(row('libcnm, set-up', single.setup, raw.setup))
      console.log(row('libcnm, set-up, 16 at once', many.setup))
      console.log(row('bare kernel, tear-down', raw.teardown))
      console.log(row('libcnm, tear-down', single.teardown))
      console.log(row('libcnm, tear-down, 16 at once', many.teardown))
    }
    if (ends.length) {
      global.gc?.()
      console.log(
        `heap per joined endpoint: ${((process.memoryUsage().heapUsed / 1024 - 20_000) / ends.length).toFixed(1)} KB at most (heap less 20 MB, by ${ends.length})`,
      )
    }
    await Promise.all(ends.map(end => end()))
    const created: number[] = []
    const deleted: number[] = []
    for (let n = 0; n < 50; n++) {
      const start = performance.now()
      const made = await controller.createNetwork({
        name: `n${n}`,
        ipam: { config: [{ subnet: `10.200.${n}.0/24` }] },
      })
      created.push(performance.now() - start)
      const begin = performance.now()
      await made.delete()
      deleted.push(performance.now() - begin)
    }
    console.log(
      `network create ${ms(quantile(created, 0.5))} (${ms(quantile(created, 0.9))}), delete ${ms(quantile(deleted, 0.5))} (${ms(quantile(deleted, 0.9))})`,
    )
    await controller.settle()
    await network.delete()
  } finally {
    await controller.close()
    host.close()
    await kernel.remove(hostPath)
    rmSync(directory, { recursive: true, force: true })
  }
}
