/**
 * libnftables in this process: the system's own library through ffi, so that a change of the ruleset costs no child
 * process and is one kernel transaction. Used once or twice per operation; the hot paths do not go through ffi.
 */
import { closeSync, openSync } from 'node:fs'
import { CnmError } from '../base/errors'

/** The soname since 0.9.1 (2019); Debian's package is libnftables1. */
const SONAME = 'libnftables.so.1'
const NFT_CTX_DEFAULT = 0 // nftables/libnftables.h

/** `struct nft_ctx *`: bytes that ref-napi took for a pointer. */
type Context = Buffer

/** Of the C library. */
interface System {
  socket(domain: number, type: number, protocol: number): number
  close(fd: number): number
}

interface Library {
  nft_ctx_new(flags: number): Context
  nft_ctx_free(context: Context): void
  nft_ctx_buffer_output(context: Context): number
  nft_ctx_buffer_error(context: Context): number
  nft_ctx_get_output_buffer(context: Context): string | null
  nft_ctx_get_error_buffer(context: Context): string | null
  nft_run_cmd_from_buffer(context: Context, commands: Buffer): number
}

type Signature = [result: string, parameters: string[]]
interface FfiModule {
  Library: new (soname: string | null, signatures: Record<string, Signature>) => unknown
}

const SIGNATURES: Record<keyof Library, Signature> = {
  nft_ctx_new: ['pointer', ['uint32']],
  nft_ctx_free: ['void', ['pointer']],
  nft_ctx_buffer_output: ['int', ['pointer']],
  nft_ctx_buffer_error: ['int', ['pointer']],
  nft_ctx_get_output_buffer: ['string', ['pointer']],
  nft_ctx_get_error_buffer: ['string', ['pointer']],
  nft_run_cmd_from_buffer: ['int', ['pointer', 'pointer']],
}

const SYSTEM: Record<keyof System, Signature> = {
  socket: ['int', ['int', 'int', 'int']],
  close: ['int', ['int']],
}
const AF_NETLINK = 16
const SOCK_RAW_CLOEXEC = 3 | 0o2000000
const NETLINK_NETFILTER = 12

let library: Library | undefined
let system: System | undefined

/** Loaded at first use: a host with another backend needs neither the library nor the compiled ffi module. */
function load(): Library {
  if (library) return library
  let ffi: FfiModule
  try {
    ffi = require('ffi-napi') as FfiModule
  } catch (cause) {
    throw new CnmError(
      'ERR_FIREWALL_UNAVAILABLE',
      `the module ffi-napi does not load (${reason(cause)}); "npm rebuild ffi-napi ref-napi" builds it`,
      { module: 'ffi-napi' },
      { cause },
    )
  }
  try {
    system = new ffi.Library(null, SYSTEM) as System
    library = new ffi.Library(SONAME, SIGNATURES) as Library
  } catch (cause) {
    throw new CnmError(
      'ERR_FIREWALL_UNAVAILABLE',
      `${SONAME} does not load (${reason(cause)}); "apt-get install libnftables1" installs it`,
      { library: SONAME },
      { cause },
    )
  }
  reserve()
  return library
}

/** libnftables waits by select(2): a socket whose number is not below this makes the C library end the process. */
const FD_SETSIZE = 1024
/** Low descriptors kept for contexts that are opened when the process has more than a thousand. */
const RESERVED = 4
const reserved: number[] = []

function reserve(): void {
  while (reserved.length < RESERVED) {
    const fd = openSync('/dev/null', 'r')
    if (fd >= FD_SETSIZE) {
      closeSync(fd)
      return
    }
    reserved.push(fd)
  }
}

const reason = (error: unknown): string =>
  (error as Error | undefined)?.message?.split('\n')[0] ?? String(error)

/** True when libnftables can be used here. Never throws. */
export function nftAvailable(): boolean {
  try {
    load()
    return true
  } catch {
    return false
  }
}

/**
 * A context of libnftables. Its netlink socket belongs to the namespace that the thread is in when it is constructed;
 * later calls of {@link run} act there wherever the thread is. Synchronous throughout.
 */
export class Nft {
  readonly #library = load()
  #context: Context | undefined

  constructor() {
    mustHaveNetfilter()
    const context = this.#library.nft_ctx_new(NFT_CTX_DEFAULT)
    if (isNull(context))
      throw new CnmError(
        'ERR_FIREWALL_UNAVAILABLE',
        'libnftables gave no context: out of memory or descriptors',
      )
    this.#library.nft_ctx_buffer_output(context)
    this.#library.nft_ctx_buffer_error(context)
    this.#context = context
  }

  /** Runs commands as one transaction and returns what they print. Only text that a renderer of ours made may come here. */
  run(commands: string): string {
    const context = this.#context
    if (!context) throw new CnmError('ERR_CLOSED', 'this libnftables context is closed')
    // An own buffer, referenced until the call is over: ref's 'string' type would copy it once more.
    const text = Buffer.from(`${commands}\0`)
    const status = this.#library.nft_run_cmd_from_buffer(context, text)
    // Both are emptied by being read; a warning of a successful run must not turn up in a later error.
    const output = this.#library.nft_ctx_get_output_buffer(context) ?? ''
    const complaint = this.#library.nft_ctx_get_error_buffer(context) ?? ''
    if (status === 0) return output
    const errno = errnoOf(complaint)
    const details = {
      output: complaint.slice(0, 4000),
      commands: commands.length > 2000 ? `${commands.slice(0, 2000)}...` : commands,
      errno,
    }
    if (errno === 'EPERM')
      throw new CnmError(
        'ERR_PRIVILEGE',
        'nftables refused the transaction: CAP_NET_ADMIN is needed in the user namespace that owns the network namespace',
        details,
      )
    throw new CnmError('ERR_FIREWALL', `nftables refused the transaction: ${brief(complaint)}`, details)
  }

  close(): void {
    if (!this.#context) return
    this.#library.nft_ctx_free(this.#context)
    this.#context = undefined
    reserve() // its descriptor was a low one
  }
}

/**
 * Where the kernel has no such socket, or its number is too high, libnftables ends the process, so that is found out first.
 * Throws ERR_FIREWALL_UNAVAILABLE.
 */
function mustHaveNetfilter(): void {
  while (nextDescriptor() >= FD_SETSIZE) {
    const fd = reserved.pop()
    if (fd === undefined)
      throw new CnmError(
        'ERR_FIREWALL_UNAVAILABLE',
        `libnftables needs a descriptor below ${FD_SETSIZE}, and this process has given all of them to something else; open the controller earlier`,
      )
    closeSync(fd)
  }
}

/** The number that a netfilter socket gets now. */
function nextDescriptor(): number {
  const fd = system?.socket(AF_NETLINK, SOCK_RAW_CLOEXEC, NETLINK_NETFILTER) ?? -1
  if (fd < 0)
    throw new CnmError(
      'ERR_FIREWALL_UNAVAILABLE',
      'the kernel gives no netfilter socket: it needs nfnetlink and nf_tables ("modprobe nf_tables"), and a permission to use them',
    )
  system?.close(fd)
  return fd
}

function isNull(pointer: Context): boolean {
  const ref = require('ref-napi') as { isNull(buffer: Buffer): boolean }
  return ref.isNull(pointer)
}

/** The complaint's first lines say what is wrong; below them the commands are quoted, thousands of characters perhaps. */
function brief(complaint: string): string {
  const lines = complaint.split('\n').filter(line => /rror|ould not|nternal/.test(line))
  const text = (lines.length ? lines : [complaint]).slice(0, 3).join('; ').trim()
  return text.length > 400 ? `${text.slice(0, 400)}...` : text || 'no reason given'
}

/** libnftables tells errno only by its message (glibc's strerror, C locale). */
function errnoOf(complaint: string): string | undefined {
  const known: [RegExp, string][] = [
    [/No such file or directory/, 'ENOENT'],
    [/File exists/, 'EEXIST'],
    [/Operation not permitted/, 'EPERM'],
    [/(Operation|Protocol) not supported/, 'EOPNOTSUPP'],
    [/Device or resource busy/, 'EBUSY'],
    [/Cannot allocate memory/, 'ENOMEM'],
  ]
  return known.find(([pattern]) => pattern.test(complaint))?.[1]
}
