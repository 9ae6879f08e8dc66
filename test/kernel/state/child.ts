/** A process with a controller: one network, one container with a published port. Lives until it is killed. */
import { Controller, type ControllerInput } from '../../../lib/index'

export interface Orders {
  options: Exclude<ControllerInput, undefined>
  subnet: string
  ports: string[]
}

async function main(): Promise<void> {
  const { options, subnet, ports } = JSON.parse(process.argv[2] ?? '') as Orders
  const controller = await Controller.open(options)
  const network = await controller.createNetwork({ name: 'web', ipam: { config: [{ subnet }] } })
  const sandbox = await controller.createSandbox({ containerId: 'c1' })
  const endpoint = await network.createEndpoint({ name: 'c1', aliases: ['api'], ports })
  await endpoint.join(sandbox)
  process.stdout.write(`${sandbox.key}\n`)
  setInterval(() => {}, 60_000) // milliseconds; it stays
}

main().catch((error: unknown) => {
  console.error(error)
  process.exit(1)
})
