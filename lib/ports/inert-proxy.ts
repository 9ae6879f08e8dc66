import type { Stack } from '../kernel/kernel'
import type { PortProxy, ProxyListener, ProxyTarget, UdpListener } from './proxy'

/** Keeps sockets without serving them: where the kernel is a model, its descriptors are numbers and carry no bytes. */
export class InertProxy implements PortProxy {
  readonly load = { connections: 0, sessions: 0 }
  readonly #stack: Pick<Stack, 'closeFd'>
  readonly #open = new Map<ProxyListener, ProxyTarget>()

  constructor(stack: Pick<Stack, 'closeFd'>) {
    this.#stack = stack
  }

  /** Where the ports that are being served lead. */
  get targets(): ProxyTarget[] {
    return [...this.#open.values()]
  }

  async tcp(fd: number, target: ProxyTarget): Promise<ProxyListener> {
    return this.#listener(new Map([['', fd]]), target)
  }

  udp(sockets: Iterable<readonly [address: string, fd: number]>, target: ProxyTarget): UdpListener {
    return this.#listener(new Map(sockets), target)
  }

  #listener(sockets: Map<string, number>, target: ProxyTarget): UdpListener {
    const listener: UdpListener = {
      add: (address, fd) => void sockets.set(address, fd),
      drop: address => {
        const fd = sockets.get(address)
        if (fd !== undefined) this.#stack.closeFd(fd)
        sockets.delete(address)
      },
      redirect: next => void this.#open.set(listener, next),
      close: async () => {
        if (!this.#open.delete(listener)) return
        for (const address of [...sockets.keys()]) listener.drop(address)
      },
    }
    this.#open.set(listener, target)
    return listener
  }

  async close(): Promise<void> {
    await Promise.all([...this.#open.keys()].map(listener => listener.close()))
  }
}
