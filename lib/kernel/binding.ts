import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { CnmError } from '../base/errors'

/**
 * What the native addon offers: enter a namespace, speak netlink, open sockets there. No policy: numbers in, numbers
 * out; errors are thrown as `Error` with `errno` (positive number), `code` ('EEXIST') and `syscall`. Everything that is
 * synchronous enters a namespace on the calling thread and is home again before it returns (the process aborts
 * otherwise); everything that is a promise runs on another thread.
 */
export interface Binding {
  /* namespaces: `ns` is a descriptor of one, O_CLOEXEC */
  /** Opens what is at `path` (or the calling thread's own namespace for null). Throws EINVAL if it is no network namespace. */
  openNetns(path: string | null): number
  /**
   * unshare(CLONE_NEWNET) on a thread kept for that alone, `lo` up, bind-mounted on `path` (file made 0444;
   * EEXIST when something is there; the directory exists already), plus one NETLINK_ROUTE socket opened inside, all in one journey.
   * `path` null: not bound anywhere.
   */
  createNetns(path: string | null): Promise<{ ns: number; inode: number; route: number }>
  /** The same on the calling thread. Throws EPERM where that would not be let back home (inside a user namespace). */
  createNetnsSync(path: string | null): { ns: number; inode: number; route: number }
  /** Bind-mounts the namespace of descriptor `ns` on `path` (file is made). */
  bindNetns(ns: number, path: string): void
  /** umount2(MNT_DETACH) and unlink; ENOENT and "not mounted" are fine. EISDIR for a directory. */
  removeNetns(path: string): void
  /** st_ino of a descriptor. */
  inode(fd: number): number

  /* sockets */
  /**
   * socket(2) inside the namespace, SOCK_CLOEXEC. A netlink socket comes with extended acks, capped acks, strict checks
   * (NETLINK_ROUTE) and a receive buffer of 1 MiB.
   */
  socket(ns: number, domain: number, type: number, protocol: number): number
  setsockopt(fd: number, level: number, name: number, value: number | Uint8Array): void
  /** `address` is the raw sockaddr, sa_family included (host byte order), port in network order. */
  bind(fd: number, address: Uint8Array): void
  /** Of a datagram socket: where it sends to, and alone hears from. `address` as for {@link bind}. */
  connect(fd: number, address: Uint8Array): void
  listen(fd: number, backlog: number): void
  /** getsockname(2): the raw sockaddr. */
  socketName(fd: number): Uint8Array
  /** Name of the link of this index, in the namespace of a socket; undefined: there is none. Waits for no lock (netdevice(7)). */
  linkName(fd: number, index: number): string | undefined
  close(fd: number): void

  /* datagrams */
  /**
   * Serves a bound UDP or packet socket in batches, on the event loop's own thread: calls `onHeard` with the number of datagrams that
   * came (64 at most), and when it returns, sends its answers; or with a negative errno, when the kernel says that what was
   * sent did not arrive (ECONNREFUSED, of a connected socket). Takes over the descriptor, unless it throws (EPROTOTYPE: not
   * a datagram socket). Does not keep the process alive. What `onHeard` throws is an uncaught exception.
   */
  datagrams(fd: number, onHeard: (count: number) => void): Datagrams

  /* netlink */
  /**
   * Sends each step's messages (whole nlmsghdr-framed messages, back to back, each with NLM_F_ACK or NLM_F_DUMP; sequence
   * numbers are set here) over its socket and reads until each has been answered. Steps run in order on one worker; a
   * step in which a message failed ends the journey. Answers: `errors[i]` per message (0 or positive errno), `texts[i]` the
   * kernel's extended ack text if any, `data`: the payload messages (dump or NLM_F_ECHO replies), headers included, back to back.
   * A dump interrupted (NLM_F_DUMP_INTR) is repeated up to three times; then its error is EINTR, beside the data read last.
   * Times out after 5 s of silence: rejects with ETIMEDOUT. Rejects with EINVAL when a message is cut off, lacks
   * NLM_F_REQUEST, or asks for no answer.
   * One socket, one exchange at a time: the caller serialises. It may close `fd` meanwhile, and re-use `messages`.
   */
  exchange(steps: { fd: number; messages: Uint8Array; count: number }[]): Promise<ExchangeResult[]>
  /** One step of that on the calling thread. */
  exchangeSync(step: { fd: number; messages: Uint8Array; count: number }): ExchangeResult
  /**
   * Joins multicast groups of a netlink family inside the namespace. `onData` gets whole received buffers (several messages
   * each), on the JavaScript thread; `onData(null)` after ENOBUFS. Does not keep the process alive. One poller thread (epoll) serves
   * all subscriptions of an environment.
   */
  subscribe(
    ns: number,
    protocol: number,
    groups: number[],
    onData: (data: Uint8Array | null) => void,
  ): { close(): void }
  /**
   * The same of all other namespaces that have an id (`nsid`) in this one, by one socket. Of what they say, only what the
   * filter lets through: a classic BPF program over the message (struct sock_filter, 8 bytes each). Before each message in `data`
   * comes one of type NLMSG_NOOP, whose body is the id. Needs CAP_NET_BROADCAST: EPERM.
   */
  subscribeOthers(
    ns: number,
    protocol: number,
    groups: number[],
    filter: Uint8Array,
    onData: (data: Uint8Array | null) => void,
  ): { close(): void }

  /* /proc/sys: whole journey on the calling thread */
  /** Reads `/proc/sys/KEY` inside the namespace, without the newline at its end; null when it does not exist. */
  readSysctl(ns: number, key: string): string | null
  writeSysctl(ns: number, key: string, value: string): void

  /**
   * Enters, calls `body` synchronously, comes home even if it throws (aborts the process if it cannot). Returns its result.
   * Nesting is allowed. `body` must not start threads (a Worker): they would be born in the namespace and stay there.
   */
  run<T>(ns: number, body: () => T): T
}

/**
 * What {@link Binding.datagrams} returns. The arrays are the same memory for all sockets of a thread: valid during a call of
 * `onHeard`. Datagram i lies in slot i, `heard.length / heardLengths.length` bytes each; longer ones are cut.
 */
export interface Datagrams {
  /** Where it is bound. */
  readonly port: number
  readonly heard: Uint8Array
  readonly heardLengths: Uint16Array
  /** Who said it, 28 bytes each: a raw sockaddr. To be copied for {@link send}. */
  readonly sources: Uint8Array
  /** Answers, slot i to who said datagram i; those of length 0 (all, when `onHeard` is called) are not sent. */
  readonly said: Uint8Array
  readonly saidLengths: Uint16Array
  /**
   * Says one thing, outside of the slots; `to` empty: to whom the socket is connected. Returns 0, or the errno of what did not
   * go. Does nothing after `close`.
   */
  send(message: Uint8Array, to: Uint8Array): number
  /** What could not be sent since the beginning: UDP may lose, the loop must not wait. */
  lost(): number
  /** Again: does nothing. */
  close(): void
}

export interface ExchangeResult {
  errors: number[]
  texts: (string | undefined)[]
  data: Uint8Array
}

const ADDON = join('native', 'build', 'Release', 'cnm.node')

let loaded: Binding | undefined

/** The addon; loaded when it is first asked for, so that what needs no kernel runs without it (the mocked one, on any system). */
export function loadBinding(): Binding {
  loaded ??= requireAddon(join(packageRoot(), ADDON))
  return loaded
}

function requireAddon(file: string): Binding {
  if (!existsSync(file)) {
    throw new CnmError(
      'ERR_UNSUPPORTED',
      `the native addon ${file} has not been built; run: npm rebuild libcnm`,
      {
        file,
      },
    )
  }
  try {
    return require(file)
  } catch (cause) {
    const reason = (cause as Error).message
    throw new CnmError(
      'ERR_UNSUPPORTED',
      `the native addon ${file} does not load (${reason}); run: npm rebuild libcnm`,
      { file },
      { cause },
    )
  }
}

/** Of this package, from lib/kernel as well as from dist/lib/kernel. */
function packageRoot(): string {
  for (let directory = __dirname; ; directory = dirname(directory)) {
    const manifest = join(directory, 'package.json')
    if (existsSync(manifest) && JSON.parse(readFileSync(manifest, 'utf8')).name === 'libcnm') return directory
    if (directory === dirname(directory)) return __dirname
  }
}
