/** Routes below /libcnm: what the library can do and Docker's network API has no words for. */
import { z } from 'zod'
import type { Controller } from '../controller'
import type { CnmEvent } from '../core/events'
import { EndpointOptions, JoinOptions, SandboxOptions } from '../options'
import { parse } from '../base/parse'
import { atomically } from '../base/undo'
import type { Exchange, Router } from './router'
import { topologyOf } from './topology'

/** Bytes that may wait for a reader of the event stream. */
const BACKLOG = 4 * 1024 * 1024

export function addExtraRoutes(router: Router, controller: Controller): void {
  router
    .route('GET', '/libcnm/controller', () => ({ ...controller.inspect(), drivers: controller.drivers() }))
    .route('GET', '/libcnm/sandboxes', () => controller.sandboxes().map(sandbox => sandbox.inspect()))
    .route('POST', '/libcnm/sandboxes', async exchange => {
      const input = parse(SandboxOptions, await body(exchange), 'sandbox')
      const sandbox = await controller.createSandbox(input as z.input<typeof SandboxOptions>)
      exchange.send(201, sandbox.inspect())
    })
    .route('GET', '/libcnm/sandboxes/{id}/statistics', ({ params }) =>
      controller.sandbox(params.id ?? '').statistics(),
    )
    .route('GET', '/libcnm/sandboxes/{id}', ({ params }) => controller.sandbox(params.id ?? '').inspect())
    .route('DELETE', '/libcnm/sandboxes/{id}', async exchange => {
      await controller.sandbox(exchange.params.id ?? '').delete({ force: exchange.flag('force') })
      exchange.send(204)
    })
    .route('POST', '/libcnm/endpoints', async exchange => {
      const { network, sandbox, endpoint, join } = parse(EndpointRequest, await body(exchange), 'body')
      const where = controller.sandbox(sandbox)
      const made = await atomically(async undo => {
        const created = await controller.network(network).createEndpoint({
          name: where.containerId,
          ...(endpoint as Partial<z.input<typeof EndpointOptions>>),
        })
        undo.push('delete the endpoint', () => created.delete({ force: true }))
        await created.join(where, join as z.input<typeof JoinOptions>)
        return created
      })
      exchange.send(201, made.inspect())
    })
    .route('GET', '/libcnm/check', () => controller.check())
    .route('POST', '/libcnm/repair', () => controller.repair())
    .route('POST', '/libcnm/gc', async exchange => {
      const { containerIds } = parse(GcRequest, await body(exchange), 'body')
      return { deleted: await controller.gc({ containerIds }) }
    })
    .route('GET', '/libcnm/top', () => sample(controller))
    .route('GET', '/libcnm/topology', () => topologyOf(controller))
    .route('GET', '/libcnm/events', exchange => streamEvents(controller, exchange))
}

const GcRequest = z.strictObject({ containerIds: z.array(z.string()) })
const EndpointRequest = z.strictObject({
  network: z.string(),
  sandbox: z.string(),
  endpoint: z.record(z.string(), z.unknown()).default({}),
  join: z.record(z.string(), z.unknown()).default({}),
})

const body = (exchange: Exchange) => exchange.json(z.unknown(), 'body')

/** Counters of every interface of every sandbox. One that goes meanwhile is left out. */
async function sample(controller: Controller) {
  const sandboxes = []
  for (const sandbox of controller.sandboxes()) {
    if (!sandbox.key) continue
    const statistics = await sandbox.statistics().catch(() => undefined)
    if (statistics) sandboxes.push({ containerId: sandbox.containerId, statistics })
  }
  return { time: Date.now(), sandboxes }
}

async function streamEvents(controller: Controller, { response, signal }: Exchange): Promise<void> {
  response.writeHead(200, { 'Content-Type': 'application/x-ndjson' })
  response.flushHeaders()
  for await (const event of controller.events(signal)) {
    response.write(`${JSON.stringify(plain(event))}\n`)
    if (response.writableLength > BACKLOG) response.destroy()
  }
  response.end()
}

/** An error shows nothing of itself in JSON. */
const plain = (event: CnmEvent) =>
  event.type === 'problem'
    ? { ...event, error: String((event.error as Error | undefined)?.message ?? event.error) }
    : event
