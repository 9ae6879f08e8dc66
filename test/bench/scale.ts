/**
 * Many hosts and endpoints against a real etcd; the kernels are modelled. How fast they join, until when all hosts know, what
 * the watches carry, what a host needs. `npm run bench -- scale [HOSTS] [ENDPOINTS]`, 100 and 10,000 unless said.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { join } from 'node:path'
import { TestEtcd } from '../support/etcd'
import type { Answer, Order } from './scale/protocol'

const PROCESSES = 4
const NETWORKS = 50
/** Single joins when all is full. */
const SINGLE = 40

export async function run(): Promise<void> {
  const hosts = Number(process.argv[3] ?? 100)
  const endpoints = Number(process.argv[4] ?? 10_000)
  const each = Math.floor(endpoints / hosts)
  const etcd = await TestEtcd.start('--quota-backend-bytes', String(1 << 30))
  const children = Array.from({ length: Math.min(PROCESSES, hosts) }, () =>
    fork(join(__dirname, 'scale', 'hosts.js'), { execArgv: ['--expose-gc', '--max-old-space-size=4096'] }),
  )
  const all = (order: Order) => Promise.all(children.map(child => ask(child, order)))
  try {
    const numbers = Array.from({ length: hosts }, (_, at) => at + 1)
    const opened = await timed(() =>
      Promise.all(
        children.map((child, at) =>
          ask(child, {
            do: 'open',
            endpoint: etcd.endpoint,
            hosts: numbers.filter(number => number % children.length === (at + 1) % children.length),
          }),
        ),
      ),
    )
    const first = children[0] as ChildProcess
    await ask(first, { do: 'create', networks: NETWORKS })
    const empty = await all({ do: 'measure' })
    const start = await traffic(etcd)
    console.log(
      `${hosts} hosts in ${children.length} processes, ${NETWORKS} networks, ${hosts * each} endpoints; opened in ${seconds(opened)}`,
    )

    const filling = await timed(() => all({ do: 'fill', each, networks: NETWORKS }))
    const knowing = await timed(() => all({ do: 'know', endpoints: hosts * each, besides: 0 }))
    const full = await all({ do: 'measure' })
    const filled = await traffic(etcd)
    const carried = { events: filled.events - start.events, bytes: filled.bytes - start.bytes }
    console.log(
      `all joined in ${seconds(filling)} (${Math.round((hosts * each * 1000) / filling)} joins a second); every host knows the last one ${seconds(knowing)} later`,
    )
    console.log(
      `watches: ${carried.events} events, ${mb(carried.bytes)} MB sent by etcd, ${(carried.bytes / carried.events).toFixed(0)} bytes an event; ${Math.round((1000 * carried.events) / (filling + knowing))} events a second`,
    )
    console.log(
      `processor time of the hosts: ${((1000 * sum(full, 'cpu')) / carried.events).toFixed(0)} us an event; etcd's file: ${mb(filled.size)} MB`,
    )
    console.log(
      `heap of a host: ${mb(mean(empty, 'heap'))} MB without endpoints, ${mb(mean(full, 'heap'))} MB with all (${((mean(full, 'heap') - mean(empty, 'heap')) / (hosts * each)).toFixed(0)} bytes an endpoint, its modelled kernel included)`,
    )

    const single: number[] = []
    for (let n = 0; n < SINGLE; n++) {
      const host = (n * 7) % hosts
      await Promise.all(children.map(child => ask(child, { do: 'join', host: host + 1, name: `single${n}` })))
      single.push(await timed(() => all({ do: 'know', endpoints: hosts * each, besides: n + 1 })))
    }
    console.log(
      `one more join, until all hosts have it in their kernels: p50 ${quantile(single, 0.5).toFixed(1)} ms, p99 ${quantile(single, 0.99).toFixed(1)} ms`,
    )

    await etcd.kill()
    await etcd.run()
    const back = await timed(() => all({ do: 'connected' }))
    console.log(
      `etcd killed and started: all hosts are back, with a new listing each, after ${seconds(back)}`,
    )
    await all({ do: 'close' })
  } finally {
    for (const child of children) child.kill('SIGKILL')
    await etcd.stop()
  }
}

function ask(child: ChildProcess, order: Order): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const ended = (code: number | null) => reject(new Error(`a process with hosts ended with ${code}`))
    child.once('exit', ended)
    child.once('message', answer => {
      child.off('exit', ended)
      resolve(answer as Answer)
    })
    child.send(order)
  })
}

async function timed(body: () => Promise<unknown>): Promise<number> {
  const began = performance.now()
  await body()
  return performance.now() - began
}

/** Of etcd since it began: events that its watches have sent, bytes to clients; of its file, now. */
async function traffic(etcd: TestEtcd): Promise<{ events: number; bytes: number; size: number }> {
  const text = await etcd.metrics()
  const of = (name: string) => Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(text)?.[1] ?? Number.NaN)
  return {
    events: of('etcd_debugging_mvcc_events_total'),
    bytes: of('etcd_network_client_grpc_sent_bytes_total'),
    size: of('etcd_mvcc_db_total_size_in_bytes'),
  }
}

const quantile = (list: number[], q: number): number =>
  [...list].sort((a, b) => a - b)[Math.min(list.length - 1, Math.floor(list.length * q))] as number
const sum = (list: Answer[], field: 'heap' | 'cpu'): number =>
  list.reduce((total, each) => total + (each[field] ?? 0), 0)
const mean = (list: Answer[], field: 'heap' | 'cpu'): number => sum(list, field) / list.length
const seconds = (ms: number) => `${(ms / 1000).toFixed(2)} s`
const mb = (bytes: number) => (bytes / 2 ** 20).toFixed(1)
