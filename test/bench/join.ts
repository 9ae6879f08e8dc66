/**
 * What a container's network costs: {createSandbox + createEndpoint + join} and {leave + delete + delete}, with 0 to 1,000
 * endpoints present, one at a time and 16 at once, beside a C program that has the kernel do the same by bare rtnetlink on
 * the same bridge, in turns of some rounds. The join alone when sandboxes are kept warm. And network create and delete.
 */
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
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

/** Rounds of either in a row: what else this machine does meets both alike. */
const TURN = 20

/** One at a time: the bare kernel and libcnm in turns. */
async function sequential(
  controller: Controller,
  network: Network,
  bareTurn: () => Times,
): Promise<{ bare: Times; ours: Times }> {
  const bare: Times = { setup: [], teardown: [] }
  const ours: Times = { setup: [], teardown: [] }
  for (let n = 0; n < ROUNDS; n += TURN) {
    const { setup, teardown } = bareTurn()
    bare.setup.push(...setup)
    bare.teardown.push(...teardown)
    await pause(100)
    for (let i = 0; i < TURN; i++) await (await one(controller, network, ours))()
    await controller.settle()
    await pause(100)
  }
  return { bare, ours }
}

/** The join alone, into sandboxes from stock; the stock is filled in between. */
async function warm(hostPath: string, runDir: string): Promise<number[]> {
  await using controller = await Controller.open({
    name: 'libcnm-warm',
    host: hostPath,
    runDir,
    firewall: 'none',
    warmSandboxes: 4,
  })
  const network = await controller.createNetwork({
    name: 'warm',
    ipam: { config: [{ subnet: '10.98.0.0/16' }] },
  })
  const times: number[] = []
  for (let n = 0; n < ROUNDS; n++) {
    const sandbox = await controller.createSandbox({ containerId: `w${n}`, ...PLAIN })
    const endpoint = await network.createEndpoint({ name: `w${n}` })
    const start = performance.now()
    await endpoint.join(sandbox)
    times.push(performance.now() - start)
    await sandbox.delete()
    await pause(20)
  }
  await controller.settle()
  await network.delete()
  return times
}

/** Bytes, of what is in use. */
function heap(): number {
  setFlagsFromString('--expose-gc')
  ;(runInNewContext('gc') as () => void)()
  return process.memoryUsage().heapUsed
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
  const args = [`--net=${hostPath}`, program, bridge, directory, String(TURN), '10.99.200.1', '10.99.0.1']
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
    for (let n = 0; n < 50; n++) await (await one(controller, network))() // warm-up
    await controller.settle()
    const empty = heap()
    for (const present of PRESENT) {
      while (ends.length < present) ends.push(await one(controller, network))
      const filled = heap()
      const { bare: raw, ours: single } = await sequential(controller, network, () =>
        bare(program, hostPath, network.link as string, join(directory, 'ns')),
      )
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
      if (present)
        console.log(`  heap per joined endpoint: ${((filled - empty) / 1024 / present).toFixed(1)} KB`)
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
    const joins = await warm(hostPath, join(directory, 'warm'))
    console.log(`join into a warm sandbox ${ms(quantile(joins, 0.5))} (${ms(quantile(joins, 0.9))})`)
  } finally {
    await controller.close()
    host.close()
    await kernel.remove(hostPath)
    rmSync(directory, { recursive: true, force: true })
  }
}
