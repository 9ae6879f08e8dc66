/** What the flow tests share: controllers on a modelled kernel, closed after each test. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  Controller,
  type ControllerInput,
  type Endpoint,
  type ErrorCode,
  type JoinInput,
  type Network,
  type NetworkInput,
  type Sandbox,
} from 'libcnm'
import { MockKernel, type MockKernelOptions, type NetnsView } from 'libcnm/testing'

const cleanup: (() => unknown)[] = []
afterEach(async () => {
  for (const act of cleanup.splice(0).reverse()) await act()
})

/** Runs after the test, newest first. */
export const later = (act: () => unknown): void => void cleanup.push(act)

export function directory(): string {
  const path = mkdtempSync(join(tmpdir(), 'libcnm-flow-'))
  later(() => rmSync(path, { recursive: true, force: true }))
  return path
}

export const RUN = '/run/libcnm-flow'

export async function open(kernel: MockKernel, options: Exclude<ControllerInput, undefined> = {}) {
  const controller = await Controller.open({ kernel, runDir: RUN, hostId: 'flow', ...options })
  later(() => controller.close())
  return controller
}

export async function fresh(
  options: Exclude<ControllerInput, undefined> = {},
  kernel: MockKernelOptions = {},
) {
  const mock = new MockKernel(kernel)
  return { kernel: mock, controller: await open(mock, options) }
}

/** Network N has the subnet 10.N.0.0/24, and fd00:N::/64 when `ipv6`. */
export const subnets = (n: number, ipv6 = false) => ({
  config: [{ subnet: `10.${n}.0.0/24` }, ...(ipv6 ? [{ subnet: `fd00:${n}::/64` }] : [])],
})

export const networkOf = (
  controller: Controller,
  name: string,
  n: number,
  { ipv6 = false, ...rest }: Partial<NetworkInput> & { ipv6?: boolean } = {},
): Promise<Network> => controller.createNetwork({ name, ipam: subnets(n, ipv6), ...rest })

export const sandboxOf = (controller: Controller, containerId: string, mode = 'own'): Promise<Sandbox> =>
  controller.createSandbox({ containerId, mode, files: false })

export async function joined(network: Network, sandbox: Sandbox, options?: JoinInput): Promise<Endpoint> {
  const endpoint = await network.createEndpoint({ name: sandbox.containerId })
  await endpoint.join(sandbox, options)
  return endpoint
}

/** What the model says is inside. */
export const inside = (kernel: MockKernel, sandbox: Sandbox): NetnsView =>
  kernel.netns(sandbox.key) as NetnsView

export const linkNames = (view: NetnsView | undefined): string[] =>
  (view?.links ?? []).map(({ name }) => name)

/** `via GATEWAY dev LINK` of the default routes, IPv4 first. */
export const defaults = (view: NetnsView): string[] =>
  view.routes
    .filter(({ destination }) => destination === '0.0.0.0/0' || destination === '::/0')
    .sort((a, b) => Number(a.family) - Number(b.family))
    .map(({ gateway, link }) => `via ${String(gateway)} dev ${String(link)}`)

export const addressesOn = (view: NetnsView, link: string): string[] =>
  view.addresses
    .filter(each => each.link === link && !each.address.startsWith('fe80:'))
    .map(({ address }) => address)

/** An error of that code whose message fits. */
export const refusal = (code: ErrorCode, message?: RegExp) =>
  expect.objectContaining({ code, ...(message && { message: expect.stringMatching(message) }) })

const byId = <T extends { id: string }>(list: T[]): T[] => [...list].sort((a, b) => (a.id < b.id ? -1 : 1))

/** Everything that an operation must leave alone when it is refused: the kernel, and all that the nouns say. */
export function state(kernel: MockKernel, controller: Controller): unknown {
  return JSON.parse(
    JSON.stringify({
      kernel: kernel.snapshot(),
      networks: byId(controller.networks()).map(network => {
        const told = network.inspect()
        return { ...told, endpoints: byId(told.endpoints) }
      }),
      endpoints: byId(controller.networks().flatMap(network => network.endpoints())).map(each =>
        each.inspect(),
      ),
      sandboxes: byId(controller.sandboxes()).map(sandbox => sandbox.inspect()),
    }),
  )
}
