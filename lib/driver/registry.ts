import { nearest } from '../base/nearest'
import { printable } from '../base/parse'
import { CnmError } from '../base/errors'

/** Things with a name that are looked up by it: network drivers, IPAM drivers. */
export class Registry<T extends { readonly name: string }> {
  readonly #entries = new Map<string, { value: T; builtIn: boolean }>()
  readonly #what: string
  readonly #onMiss: ((name: string) => Promise<T | undefined>) | undefined
  #added: (value: T) => void = () => {}

  /** `onMiss`: asked for a name that nobody registered, to load a plugin. */
  constructor(what: string, onMiss?: (name: string) => Promise<T | undefined>) {
    this.#what = what
    this.#onMiss = onMiss
  }

  /** A later one replaces an earlier one of the same name, except over a built-in: ERR_DRIVER_EXISTS. */
  register(value: T, builtIn = false): void {
    if (!/^[a-zA-Z0-9][a-zA-Z0-9_.:/-]{0,127}$/.test(value.name))
      throw new CnmError(
        'ERR_INVALID_NAME',
        `${JSON.stringify(value.name)} is not a name for a ${this.#what}`,
      )
    if (this.#entries.get(value.name)?.builtIn)
      throw new CnmError(
        'ERR_DRIVER_EXISTS',
        `${this.#what} "${value.name}" is built in and cannot be replaced`,
        {
          name: value.name,
        },
      )
    this.#entries.set(value.name, { value, builtIn })
    this.#added(value)
  }

  /** The listener hears of each that comes from now on, registered or loaded. */
  onAdded(listener: (value: T) => void): void {
    this.#added = listener
  }

  async get(name: string): Promise<T> {
    const known = this.#entries.get(name)
    if (known) return known.value
    const found = await this.#onMiss?.(name)
    if (found) {
      this.#entries.set(name, { value: found, builtIn: false })
      this.#added(found)
      return found
    }
    const near = nearest(name, this.#entries.keys())
    throw new CnmError(
      'ERR_DRIVER_NOT_FOUND',
      `${this.#what} "${printable(name)}" is not registered${near ? `; did you mean "${near}"?` : ''} (there are: ${this.names().join(', ')})`,
      { name, known: this.names() },
    )
  }

  has(name: string): boolean {
    return this.#entries.has(name)
  }

  isBuiltIn(name: string): boolean {
    return this.#entries.get(name)?.builtIn ?? false
  }

  names(): string[] {
    return [...this.#entries.keys()].sort()
  }

  values(): T[] {
    return [...this.#entries.values()].map(entry => entry.value)
  }
}
