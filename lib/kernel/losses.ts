import type { Binding } from './binding'
import { isNativeError, systemError } from './errors'
import type { LossEvent, LossWatch, Stack, Watch } from './kernel'
import { AF_NETLINK, NETLINK_ROUTE } from './netlink/constants'
import { decodeEvent } from './netlink/events'
import { LOSS_FILTER, LOSS_GROUPS } from './netlink/losses'
import { decodeAll, Messages, Writer } from './netlink/message'
import { decodeNsid, encodeNameNetns, originOf } from './netlink/nsid'

const SOCK_RAW = 3
const NOTHING = new Uint8Array(0)
/** Milliseconds. Who joins a sandbox to a network is not kept waiting; its first loss is heard all the same, see {@link LinuxLosses}. */
const LATER = 50
/** As many at a time, some 20 us each, and milliseconds until the next: a restart brings a thousand, and others have their turns too. */
const SLICE = 50
const BETWEEN = 2

/** A stack that was opened; its descriptor, -1 once it is closed. */
interface Place {
  readonly openDescriptor: number
}

/**
 * One socket for all namespaces: each gets an id in the one that listens, which the kernel gave it already if a pair of
 * links leads there. Ids are asked for a little later, or as soon as a namespace speaks whose id is not known.
 */
export class LinuxLosses implements LossWatch {
  readonly #binding: Binding
  readonly #tell: (event: LossEvent, key: string | undefined) => void
  readonly #line: number
  readonly #watch: Watch
  readonly #followed = new Map<string, { place: Place; id?: number }>()
  /** By id. Two keys of one namespace are possible. */
  readonly #keys = new Map<number, string[]>()
  readonly #unnamed = new Set<string>()
  readonly #writer = new Writer()
  #timer: NodeJS.Timeout | undefined
  #closed = false

  constructor(binding: Binding, ns: number, tell: (event: LossEvent, key: string | undefined) => void) {
    this.#binding = binding
    this.#tell = tell
    let line = -1
    try {
      line = binding.socket(ns, AF_NETLINK, SOCK_RAW, NETLINK_ROUTE)
      this.#watch = binding.subscribeOthers(ns, NETLINK_ROUTE, LOSS_GROUPS, LOSS_FILTER, data =>
        this.#hear(data),
      )
    } catch (error) {
      if (line >= 0) binding.close(line)
      throw systemError(error, 'listen to other network namespaces, for which CAP_NET_BROADCAST is needed')
    }
    this.#line = line
  }

  follow(key: string, stack: Stack): void {
    const place = stack as Stack & Place
    if (this.#closed || this.#followed.get(key)?.place === place) return
    this.forget(key)
    this.#followed.set(key, { place })
    this.#unnamed.add(key)
    this.#timer ??= setTimeout(() => this.#name(SLICE), LATER).unref()
  }

  forget(key: string): void {
    const { id } = this.#followed.get(key) ?? {}
    this.#followed.delete(key)
    this.#unnamed.delete(key)
    if (id === undefined) return
    const rest = this.#keys.get(id)?.filter(each => each !== key)
    if (rest?.length) this.#keys.set(id, rest)
    else this.#keys.delete(id)
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    clearTimeout(this.#timer)
    this.#watch.close()
    this.#binding.close(this.#line)
  }

  /** Learns the ids of those that have come since the last time. */
  #name(most = Number.POSITIVE_INFINITY): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    let count = 0
    for (const key of this.#unnamed) {
      if (count++ === most) {
        this.#timer = setTimeout(() => this.#name(SLICE), BETWEEN).unref()
        return
      }
      this.#unnamed.delete(key)
      const followed = this.#followed.get(key)
      const id = followed && this.#idOf(followed.place.openDescriptor)
      if (!followed || id === undefined) continue
      followed.id = id
      this.#keys.set(id, [...(this.#keys.get(id) ?? []), key])
    }
  }

  /** Undefined: closed meanwhile. */
  #idOf(descriptor: number): number | undefined {
    if (descriptor < 0) return undefined
    try {
      encodeNameNetns(this.#writer, descriptor)
      const { count } = this.#writer
      const { data } = this.#binding.exchangeSync({ fd: this.#line, messages: this.#writer.take(), count })
      return decodeAll(data, decodeNsid)[0]
    } catch (error) {
      if (!isNativeError(error)) throw error
      return undefined
    }
  }

  #hear(data: Uint8Array | null): void {
    if (data === null) this.#tell({ topic: 'overrun' }, undefined)
    const messages = new Messages(data ?? NOTHING)
    let keys: string[] = []
    while (messages.next() && !this.#closed) {
      const id = originOf(messages)
      if (id !== undefined) {
        if (!this.#keys.has(id) && this.#unnamed.size > 0) this.#name()
        keys = this.#keys.get(id) ?? []
      } else if (keys.length > 0) {
        const event = decodeEvent(messages) as LossEvent | undefined
        if (event) for (const key of keys) this.#tell(event, key)
      }
    }
  }
}
