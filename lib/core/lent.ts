/** Addresses that are lent (by a DHCP server, say): what must be so for that, and what becomes of them. */
import { CnmError } from '../base/errors'
import type { Driver } from '../driver/contract'
import type { AddressChange, IpamDriver } from '../ipam/contract'
import type { World } from './world'
import type { Context } from './context'

/** Throws ERR_UNSUPPORTED for a network that cannot be lent addresses. */
export function mustBorrow({ name, capabilities }: Driver, link: string | undefined): void {
  if (link !== undefined && !capabilities.sharedMac) return
  throw new CnmError(
    'ERR_UNSUPPORTED',
    capabilities.sharedMac
      ? `endpoints of driver ${name} have no MAC address of their own, by which they could be lent an address; use macvlan`
      : `networks of driver ${name} have no link on the host over which addresses could be lent; use macvlan or bridge`,
    { driver: name },
  )
}

/** Keeps what the driver tells of addresses in the records of their endpoints. */
export function followLent(context: Context, world: World, driver: IpamDriver): void {
  const take = async (change: AddressChange) => {
    const endpoint = world
      .networks()
      .flatMap(network => network.endpoints())
      .find(({ id }) => id === change.owner)
    await endpoint?.addressChanged(change)
  }
  driver.watch?.(change => {
    take(change).catch((error: unknown) =>
      context.events.emit({
        type: 'problem',
        message: `cannot keep what became of ${change.address}`,
        error,
      }),
    )
  })
}
