import { CnmError } from '../../base/errors'
import type { DriverNetwork, Plan } from '../../driver/contract'
import type { Network } from '../../network'
import type { Context } from '../context'

/** Throws ERR_NETWORK_IN_USE. `users`: names of the networks that take their configuration from it. */
export function refuseWhileUsed(context: Context, network: Network, users: string[]): void {
  if (users.length)
    throw new CnmError(
      'ERR_NETWORK_IN_USE',
      `configuration network "${network.name}" is in use by ${users.join(', ')}`,
      { network: network.id },
    )
  const services = context.services?.all(network.id) ?? []
  if (services.length)
    throw new CnmError(
      'ERR_NETWORK_IN_USE',
      `network ${network.name} has services (${services.map(({ name }) => name).join(', ')})`,
      { network: network.id, services: services.map(({ id }) => id) },
    )
  if (network.endpoints().length) {
    const list = network.endpoints().map(({ name, id }) => `name:"${name}" id:"${id.slice(0, 12)}"`)
    throw new CnmError(
      'ERR_NETWORK_IN_USE',
      `network ${network.name} has active endpoints (${list.join(', ')})`,
      {
        network: network.id,
        endpoints: network.endpoints().map(({ id }) => id),
      },
    )
  }
}

/** A driver may refuse; that it is out of order does not keep the network's name and addresses hostage. */
export async function askDriver(
  context: Context,
  network: Network,
  siblings: DriverNetwork[],
): Promise<Plan> {
  const { host, log } = context
  try {
    return await network.implementation.deleteNetwork(network.forDriver, host, siblings)
  } catch (error) {
    const { kind, code } = error as CnmError
    if (kind === 'denied' || kind === 'kernel' || code === 'ERR_DRIVER_NOT_FOUND') throw error
    log.warn(`driver ${network.driver} failed to delete network ${network.name}`, { error })
    return {}
  }
}

/** Past the point of no return: what a driver cannot give back is its own affair. */
export async function freeNetwork({ log }: Context, network: Network): Promise<void> {
  const { implementation, forDriver, driver, name } = network
  await implementation.freeNetwork?.(forDriver.spec).catch((error: unknown) => {
    log.warn(`driver ${driver} failed to free what network ${name} had in the cluster`, { error })
  })
}
