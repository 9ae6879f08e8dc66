import { join } from 'node:path'
import type { Kernel, Stack } from '../../kernel/kernel'

/** A kernel to be examined. */
export interface KernelUnderTest {
  kernel: Kernel
  /** A directory that may hold namespaces; the suite removes what it binds there. */
  directory: string
  /** What this kernel lacks (link kinds): those tests are left out. */
  lacks?: readonly string[]
  /** Called after each test. */
  dispose?(): Promise<void>
}

/** Where the tests work: each finds an empty namespace, {@link Lab.host}, and what it made is gone after it. */
export class Lab {
  #under!: KernelUnderTest
  #host!: Stack
  #opened: Stack[] = []

  async begin(under: KernelUnderTest): Promise<void> {
    this.#under = under
    this.#host = this.open(await under.kernel.create(this.at('host')))
  }

  async end(): Promise<void> {
    for (const stack of this.#opened.splice(0)) stack.close()
    for (const path of await this.kernel.list(this.#under.directory)) await this.kernel.remove(path)
    await this.#under.dispose?.()
  }

  get kernel(): Kernel {
    return this.#under.kernel
  }

  get directory(): string {
    return this.#under.directory
  }

  get host(): Stack {
    return this.#host
  }

  /** The path of a namespace. */
  at(name: string): string {
    return join(this.#under.directory, name)
  }

  /** Closed after the test. */
  open(stack: Stack): Stack {
    this.#opened.push(stack)
    return stack
  }

  lacks(kinds: string[] = []): boolean {
    return kinds.some(kind => this.#under.lacks?.includes(kind))
  }

  async indexOf(stack: Stack, name: string): Promise<number | undefined> {
    return (await stack.link(name))?.index
  }

  async addressesOf(stack: Stack, name: string): Promise<string[]> {
    const index = await this.indexOf(stack, name)
    return (await stack.addresses(index)).map(address => address.address).sort()
  }

  /** Routes of the main table as `ip route` prints them, more or less. */
  async routesOf(stack: Stack, family: 4 | 6, table = 254): Promise<string[]> {
    const names = new Map((await stack.links()).map(link => [link.index, link.name]))
    return (await stack.routes({ family, table }))
      .filter(each => !/^fe80|^ff00/.test(each.destination))
      .map(each =>
        [
          each.type === 'unicast' ? '' : each.type,
          each.destination,
          each.gateway && `via ${each.gateway}`,
          each.link !== undefined && `dev ${names.get(each.link)}`,
          each.source && `src ${each.source}`,
          `scope ${each.scope} proto ${each.protocol} metric ${each.metric}`,
        ]
          .filter(Boolean)
          .join(' '),
      )
      .sort()
  }
}

/** Tries again until it passes; the kernel does some things in its own time. */
export async function eventually(check: () => void | Promise<void>, patienceMs = 5000): Promise<void> {
  const end = Date.now() + patienceMs
  for (;;) {
    try {
      await check()
      return
    } catch (error) {
      if (Date.now() > end) throw error
      await new Promise(done => setTimeout(done, 5))
    }
  }
}
