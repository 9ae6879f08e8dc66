/** IPAM drivers by name: the built-in ones and those of third parties. */
import { CnmError } from '../base/errors'
import { nearest } from '../base/parse'
import type { IpamDriver } from './contract'

export class IpamRegistry {
  private readonly drivers = new Map<string, IpamDriver>()

  constructor(builtIn: readonly IpamDriver[] = []) {
    for (const driver of builtIn) this.register(driver)
  }

  /** Throws ERR_INVALID_NAME, ERR_DRIVER_EXISTS. */
  register(driver: IpamDriver): void {
    if (!driver.name || driver.name !== driver.name.trim())
      throw new CnmError(
        'ERR_INVALID_NAME',
        `${JSON.stringify(driver.name)} is not a name for an IPAM driver; it must not be blank`,
      )
    if (this.drivers.has(driver.name))
      throw new CnmError('ERR_DRIVER_EXISTS', `there is an IPAM driver ${driver.name} already`, {
        driver: driver.name,
      })
    this.drivers.set(driver.name, driver)
  }

  /** Throws ERR_DRIVER_NOT_FOUND, naming those there are. */
  get(name: string): IpamDriver {
    const driver = this.drivers.get(name)
    if (driver !== undefined) return driver
    const near = nearest(name, this.names())
    throw new CnmError(
      'ERR_DRIVER_NOT_FOUND',
      `there is no IPAM driver ${JSON.stringify(name)}${near ? `; did you mean ${near}?` : ''}; there are ${this.names().join(', ')}`,
      { driver: name, known: this.names() },
    )
  }

  names(): string[] {
    return [...this.drivers.keys()]
  }
}
