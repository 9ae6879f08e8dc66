import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Controller } from '../../../lib/index'
import {
  compareSnapshots,
  heldDescriptors,
  type HostSnapshot,
  settled,
  snapshotHost,
} from '../../support/host-snapshot'
import { setTimeout as pause } from 'node:timers/promises'
import { hostDifferences, idsOf, storeDifferences } from './expected'
import type { Orders, WorldState } from './protocol'
import { Random } from './random'
import { contradictions, stateOf } from './state'
import { Victim } from './victim'

/** A nightly run sets CRASH_KILLS=500 and another seed. */
const KILLS = Number(process.env.CRASH_KILLS ?? 40)
const SEED = Number(process.env.CRASH_SEED ?? 6)
/** After so many kills everything is deleted, and nothing may be left. */
const ROUND = 10

let directory: string
let host: string
let baseline: HostSnapshot
let options: Omit<Orders, 'seed'>

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'libcnm-crash-'))
  host = join(directory, 'host')
  writeFileSync(host, '')
  execFileSync('unshare', [`--net=${host}`, 'ip', 'link', 'set', 'lo', 'up'])
  options = { name: 'crash', host, dataDir: join(directory, 'data'), runDir: join(directory, 'run') }
  const pristine = await snapshotHost(host, [directory])
  baseline = await emptyHost()
  const traces = compareSnapshots(pristine, baseline)
  expect(traces.filter(line => !TRACES.some(trace => trace.test(line)))).toEqual([])
})

/** All that an unused controller may leave. */
const TRACES = [
  /^[<>] sysctls: net\/ipv[46]\/(ip_forward|conf\/(all|default)\/forwarding) = [01]$/,
  /^> files: \S+\/(data|run)(\/|$)/,
  /^> nft: /,
]

afterAll(async () => {
  // whatever a failure left: mounts first, innermost first
  for (const path of (await snapshotHost(undefined, [directory])).mounts.reverse())
    execFileSync('umount', ['-l', path])
  rmSync(directory, { recursive: true, force: true })
})

/**
 * The host as a controller leaves it whose network is deleted: its empty firewall tables stand, its directories are
 * there, and forwarding stays on, for nobody can know who else has come to rely on it.
 */
async function emptyHost(): Promise<HostSnapshot> {
  const controller = await Controller.open(options)
  await joinOnce(controller)
  await deleteEverything(controller)
  await controller.close()
  return snapshotHost(host, [directory])
}

async function joinOnce(controller: Controller): Promise<void> {
  const network = await controller.createNetwork({ name: 'n0', ipv6: true })
  const sandbox = await controller.createSandbox({ containerId: 'c0' })
  const endpoint = await network.createEndpoint({
    name: 'e0',
    ports: [{ containerPort: 80, hostPort: 8000, protocol: 'tcp' }],
  })
  await endpoint.join(sandbox)
}

test(
  `${KILLS} kills: each restart agrees with what was acknowledged, the host with the store, and nothing is left at the end`,
  async () => {
    const random = new Random(SEED)
    let spare = new Victim({ ...options, seed: random.below(2 ** 31) })
    let before: WorldState = { networks: {}, sandboxes: {}, endpoints: {} }
    try {
      for (let kill = 1; kill <= KILLS; kill++) {
        const victim = spare
        await victim.until('loaded')
        spare = new Victim({ ...options, seed: random.below(2 ** 31) })
        const problems = await strike(victim, random, before)
        const controller = await Controller.open(options)
        try {
          problems.push(...(await verify(controller, victim, before)))
          if (problems.length === 0 && (kill % ROUND === 0 || kill === KILLS)) {
            await deleteEverything(controller)
            problems.push(...(await settled(async () => hostDifferences(controller, at()))))
          }
        } finally {
          before = stateOf(controller)
          const ids = idsOf(controller)
          await controller.close()
          problems.push(...(await storeDifferences(ids, options.dataDir)))
        }
        if (Object.keys(before.networks).length + Object.keys(before.sandboxes).length === 0)
          problems.push(
            ...(await settled(async () => compareSnapshots(baseline, await snapshotHost(host, [directory])))),
          )
        if (problems.length > 0) throw new Error(report(kill, victim, problems))
      }
    } finally {
      await spare.kill()
    }
  },
  60_000 + KILLS * 15_000,
)

test('a controller that was closed holds no namespace and no socket', async () => {
  const held = heldDescriptors()
  const controller = await Controller.open(options)
  await deleteEverything(controller) // if the test before has failed
  await joinOnce(controller)
  await deleteEverything(controller)
  await controller.close()
  // Node closes its handles at the end of the event loop's turn.
  for (let turn = 0; turn < 100 && heldDescriptors().sockets > held.sockets; turn++) await pause(20)
  expect(heldDescriptors()).toEqual(held)
  expect(
    await settled(async () => compareSnapshots(baseline, await snapshotHost(host, [directory]))),
  ).toEqual([])
})

const at = () => ({ ...options, seed: 0, directory })

/** Operations that a victim may live to end. */
const LIFE = 40

/** Lets the victim do a random number of operations and kills it in the midst of the next; now and then while it opens. */
async function strike(victim: Victim, random: Random, before: WorldState): Promise<string[]> {
  const problems: string[] = []
  victim.go()
  const [early, life, moment] = [random.chance(0.25), random.below(LIFE), random.next()]
  await victim.until(early ? 'opening' : 'open')
  if (!early && !(await victim.work(life))) problems.push(`it did not get to ${life} operations`)
  await new Promise(resolve => setTimeout(resolve, moment * (early ? 60 : 20))) // milliseconds
  await victim.kill()
  victim.acknowledged ??= before
  for (const { operation, error } of victim.unexpected)
    problems.push(`${operation} failed: ${JSON.stringify(error, null, 2)}`)
  return problems
}

async function verify(controller: Controller, victim: Victim, before: WorldState): Promise<string[]> {
  const found = stateOf(controller)
  const problems = contradictions(victim.acknowledged ?? before, victim.touched, found)
  problems.push(...(await settled(async () => hostDifferences(controller, at()))))
  const differences = await controller.check()
  problems.push(...differences.map(({ message }) => `check: ${message}`))
  return problems
}

async function deleteEverything(controller: Controller): Promise<void> {
  for (const sandbox of controller.sandboxes()) await sandbox.delete({ force: true })
  for (const network of controller.networks()) {
    for (const endpoint of network.endpoints()) await endpoint.delete({ force: true })
    await network.delete()
  }
  await controller.settle()
}

const report = (kill: number, victim: Victim, problems: string[]): string =>
  [
    `kill ${kill} of ${KILLS}, seed ${SEED}, after ${victim.operations} operations of process ${victim.pid}:`,
    ...problems,
    'the last that it said:',
    ...victim.history,
  ].join('\n')
