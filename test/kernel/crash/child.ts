/** Runs random operations through the public API until it is killed. Its orders: JSON of {@link Orders} as argument. */
import { once } from 'node:events'
import { Controller, type Endpoint, isCnmError, type Network, type Sandbox } from '../../../lib/index'
import type { Line, Orders } from './protocol'
import { Random } from './random'
import { stateOf } from './state'

/** Callers at once. */
const WIDTH = 3
/** Operations between two moments of quiet. */
const STRETCH = 8
const NETWORKS = ['n0', 'n1', 'n2', 'n3']
const CONTAINERS = ['c0', 'c1', 'c2', 'c3', 'c4', 'c5']
const ENDPOINTS = ['e0', 'e1', 'e2', 'e3']
const PORTS = [8000, 8001, 8002, 8003, 8004, 8005, 8006, 8007]

const say = (line: Line): void => void process.stdout.write(`${JSON.stringify(line)}\n`)

interface Operation {
  name: string
  touches: string[]
  run(): Promise<unknown>
}

async function main(): Promise<void> {
  const { seed, ...options } = JSON.parse(process.argv[2] ?? '{}') as Orders
  say({ at: 'loaded' })
  await once(process.stdin, 'data')
  const random = new Random(seed)
  say({ at: 'opening' })
  const controller = await Controller.open(options)
  say({ at: 'open' })
  for (;;) {
    say({ at: 'quiet', state: stateOf(controller) })
    let left = STRETCH
    await Promise.all(
      Array.from({ length: WIDTH }, async () => {
        while (left-- > 0) await attempt(choose(controller, random))
      }),
    )
  }
}

async function attempt({ name, touches, run }: Operation): Promise<void> {
  say({ at: 'begin', operation: name, touches })
  try {
    await run()
    say({ at: 'end', operation: name })
  } catch (error) {
    // with several callers at once an operation may find that another one was faster; anything else is a defect
    const ordinary =
      isCnmError(error) &&
      error.rollback === undefined &&
      ['not-found', 'conflict', 'denied', 'exhausted'].includes(error.kind) &&
      error.code !== 'ERR_PRIVILEGE' &&
      error.code !== 'ERR_CLOSED'
    if (ordinary) say({ at: 'end', operation: name, code: error.code })
    else say({ at: 'unexpected', operation: name, error: plain(error) })
  }
}

/** The next operation: building up and taking down in balance, so that the host stays small and changes a lot. */
function choose(controller: Controller, random: Random): Operation {
  const network = random.pick(controller.networks())
  const endpoint = network && random.pick(network.endpoints())
  const sandbox = random.pick(controller.sandboxes())
  const dice = random.next()
  if (dice < 0.14 || !network) return createNetwork(controller, random)
  if (dice < 0.3 || !sandbox) return createSandbox(controller, random)
  if (dice < 0.5 || !endpoint) return createEndpoint(network, random)
  if (dice < 0.72 && !endpoint.sandbox) return join(endpoint, sandbox, random)
  if (dice < 0.78) return updatePorts(endpoint, random)
  if (dice < 0.84)
    return {
      name: 'leave',
      touches: touched(endpoint),
      run: () => endpoint.leave({ force: random.chance(0.3) }),
    }
  if (dice < 0.9)
    return {
      name: 'delete endpoint',
      touches: touched(endpoint),
      run: () => endpoint.delete({ force: random.chance(0.5) }),
    }
  if (dice < 0.95)
    return {
      name: 'delete sandbox',
      touches: [sandbox.containerId, ...sandbox.endpoints().map(({ network: { name } }) => name)],
      run: () => sandbox.delete({ force: random.chance(0.5) }),
    }
  return {
    name: 'delete network',
    // in whose sandboxes another endpoint may become the way out
    touches: [network.name, ...network.endpoints().flatMap(each => each.sandbox?.containerId ?? [])],
    run: () => emptyAndDelete(network, random),
  }
}

function createNetwork(controller: Controller, random: Random): Operation {
  const name = random.pick(NETWORKS) as string
  const index = NETWORKS.indexOf(name)
  const six = random.chance(0.5)
  return {
    name: 'create network',
    touches: [name],
    run: () =>
      controller.createNetwork({
        name,
        ipv6: six,
        internal: random.chance(0.2),
        ipam: {
          config: [{ subnet: `10.77.${index}.0/24` }, ...(six ? [{ subnet: `fd00:77:${index}::/64` }] : [])],
        },
      }),
  }
}

function createSandbox(controller: Controller, random: Random): Operation {
  const containerId = random.pick(CONTAINERS) as string
  return {
    name: 'create sandbox',
    touches: [containerId],
    run: () =>
      controller.createSandbox({ containerId, extraHosts: random.chance(0.3) ? ['db:10.77.0.99'] : [] }),
  }
}

/** None, one or two; never the same twice. An internal network publishes nothing. */
function randomPorts(network: Network, random: Random) {
  if (network.internal) return []
  const hostPorts = new Set(Array.from({ length: random.below(3) }, () => random.pick(PORTS) as number))
  return [...hostPorts].map(hostPort => ({
    containerPort: 80,
    hostPort,
    protocol: random.chance(0.5) ? ('tcp' as const) : ('udp' as const),
  }))
}

function createEndpoint(network: Network, random: Random): Operation {
  const name = random.pick(ENDPOINTS) as string
  return {
    name: 'create endpoint',
    touches: [network.name],
    run: () =>
      network.createEndpoint({
        name,
        aliases: random.chance(0.3) ? ['api'] : [],
        ports: randomPorts(network, random),
      }),
  }
}

function join(endpoint: Endpoint, sandbox: Sandbox, random: Random): Operation {
  return {
    name: 'join',
    touches: [...touched(endpoint), sandbox.containerId],
    run: () => endpoint.join(sandbox, { priority: random.below(3) }),
  }
}

function updatePorts(endpoint: Endpoint, random: Random): Operation {
  return {
    name: 'update ports',
    touches: touched(endpoint),
    run: () => endpoint.updatePorts(randomPorts(endpoint.network, random)),
  }
}

async function emptyAndDelete(network: Network, random: Random): Promise<void> {
  if (random.chance(0.5)) for (const endpoint of network.endpoints()) await endpoint.delete({ force: true })
  await network.delete()
}

const touched = (endpoint: Endpoint): string[] => [
  endpoint.network.name,
  ...(endpoint.sandbox ? [endpoint.sandbox.containerId] : []),
]

function plain(error: unknown): unknown {
  const { message, stack } = error as Error
  return isCnmError(error) ? { ...error.toJSON(), rollback: error.rollback, stack } : { message, stack }
}

main().catch((error: unknown) => {
  say({ at: 'unexpected', operation: 'open', error: plain(error) })
  process.exit(1)
})
