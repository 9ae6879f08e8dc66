/** A process with some of the hosts: real controllers on modelled kernels, each with its own connection to etcd. */
import { Controller } from 'libcnm'
import { MockKernel } from 'libcnm/testing'
import type { Answer, Order } from './protocol'

interface Host {
  number: number
  kernel: MockKernel
  controller: Controller
  /** Endpoints of other hosts that its kernel was told of. */
  known: number
  own: number
}

const hosts: Host[] = []
let before = 0
let processor = process.cpuUsage()

const pause = (milliseconds: number) => new Promise(resolve => setTimeout(resolve, milliseconds))

/** Reads what the kernel was told, and forgets it. */
function count(host: Host): number {
  for (const { op, details } of host.kernel.journal.splice(0))
    if (details.remote !== undefined) host.known += op === 'setFdb' ? 1 : op === 'removeFdb' ? -1 : 0
  return host.known
}

function heap(): number {
  global.gc?.()
  return process.memoryUsage().heapUsed
}

async function open(number: number, endpoint: string): Promise<void> {
  const address = `192.0.${number >> 8}.${number & 255}`
  const kernel = new MockKernel({ hardware: [{ name: 'eth0', addresses: [`${address}/16`] }] })
  const name = `host${number}`
  const controller = await Controller.open({
    kernel,
    name,
    hostId: name,
    runDir: `/run/libcnm-scale/${name}`,
    cluster: {
      endpoints: [endpoint],
      host: { name, address },
      lease: 600,
      timeout: 60_000,
      addressPools: [{ base: '10.0.0.0/8', size: 23 }],
    },
  })
  hosts.push({ number, kernel, controller, known: 0, own: 0 })
}

async function join(host: Host, network: string, name: string): Promise<void> {
  const sandbox = await host.controller.createSandbox({ containerId: name, files: false, resolver: false })
  const endpoint = await host.controller.network(network).createEndpoint({ name })
  await endpoint.join(sandbox)
  host.own++
  count(host)
}

async function fill(host: Host, each: number, networks: number): Promise<void> {
  while (host.controller.networks().length < networks) await pause(20)
  for (let n = 0; n < each; n++) await join(host, `n${(host.number + n) % networks}`, `c${host.number}-${n}`)
}

async function carryOut(order: Order): Promise<Partial<Answer>> {
  switch (order.do) {
    case 'open':
      before = heap()
      for (const number of order.hosts) await open(number, order.endpoint)
      return {}
    case 'create':
      for (let n = 0; n < order.networks; n++)
        await (hosts[0] as Host).controller.createNetwork({
          name: `n${n}`,
          driver: 'overlay',
          internal: true,
        })
      return {}
    case 'fill':
      await Promise.all(hosts.map(host => fill(host, order.each, order.networks)))
      return {}
    case 'know':
      while (hosts.some(host => count(host) < order.endpoints - host.own + order.besides)) await pause(5)
      return {}
    case 'join': {
      const host = hosts.find(({ number }) => number === order.host)
      if (host) await join(host, 'n0', order.name)
      return {}
    }
    case 'measure': {
      const { user, system } = process.cpuUsage(processor)
      processor = process.cpuUsage()
      return { heap: (heap() - before) / hosts.length, cpu: (user + system) / 1000 }
    }
    case 'connected':
      while (hosts.some(({ controller }) => !controller.cluster?.connected)) await pause(5)
      return {}
    case 'close':
      for (const { controller } of hosts) await controller.close()
      return {}
  }
}

process.on('message', (order: Order) => {
  const began = performance.now()
  carryOut(order).then(
    answer => process.send?.({ took: performance.now() - began, ...answer } satisfies Answer),
    (error: unknown) => {
      console.error(error)
      process.exit(1)
    },
  )
})
