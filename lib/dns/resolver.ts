import { randomInt } from 'node:crypto'
import { CnmError, isCnmError } from '../base/errors'
import { type Logger, SILENT } from '../base/log'
import { atomically } from '../base/undo'
import type { Stack } from '../kernel/kernel'
import {
  type HostListener,
  type HostListenerOptions,
  type Names,
  RESOLVER_ADDRESS,
  type ResolveIp,
  type ResolveName,
  type ResolverOptions,
  type SandboxResolver,
} from './contract'
import { Forwarder } from './forward'
import { resolverAnswers } from './probe'
import { noRedirect, REDIRECT_TABLE, type RedirectPorts, redirectRules } from './redirect'
import { noRedirectBatch, redirectBatch, replaceRedirectBatch } from './redirect-batch'
import { redirectedPorts } from './redirect-present'
import { Responder } from './responder'
import { DnsServer } from './server'
import { SocketTransport } from './transport'
import { serveUdp, type UdpServer } from './udp'
import { RCODE } from './wire/message'
import { Zones } from './zones'

const BACKLOG = 128
/** The dynamic ports (RFC 6335 6), when any will do. */
const CHOSEN_PORTS = [49152, 65536] as const

export const openNames = (): Names => new Zones()

/**
 * Answers on 127.0.0.11:53 inside a sandbox until closed. After the sandbox got another namespace (`setKey`), close it and
 * open one there. Throws ERR_NAMES.
 */
export async function openResolver(options: ResolverOptions): Promise<SandboxResolver> {
  const { stack, host, view, mode = 'redirect', inherit = false, log = SILENT } = options
  const transport = new SocketTransport({ host, sandbox: stack })
  const forwarder = new Forwarder(transport)
  const responder = new Responder(zonesOf(options.names), view, forwarder, undefined, log)
  const server = await named(`the resolver of sandbox ${view.sandboxId}`, { sandboxId: view.sandboxId }, () =>
    atomically(async undo => {
      const before = inherit && mode === 'redirect' ? present(stack) : undefined
      const ports = mode === 'direct' ? { udp: 53, tcp: 53 } : (before?.ports ?? CHOSEN_BY_KERNEL)
      const opened = await listen(stack, responder, RESOLVER_ADDRESS, ports, log).catch((error: unknown) => {
        if (!before?.ports) throw error
        return listen(stack, responder, RESOLVER_ADDRESS, CHOSEN_BY_KERNEL, log) // somebody else has them now
      })
      undo.push('close the resolver', () => opened.close())
      if (mode === 'redirect') redirect(stack, { udp: opened.udpPort, tcp: opened.tcpPort }, before)
      return opened
    }),
  )
  let closed = false
  return {
    update: next => {
      responder.view = next
    },
    answers: () => resolverAnswers(stack),
    statistics: () => ({ ...responder.statistics(), unsent: server.udp.lost() }),
    async close({ keepRules = false } = {}) {
      if (closed) return
      closed = true
      forwarder.close()
      transport.close()
      await server.close()
      if (mode === 'redirect' && !keepRules) undirect(stack)
    },
  }
}

/** Lets the host itself resolve names of its networks. Throws ERR_NAMES. */
export async function openHostListener(options: HostListenerOptions): Promise<HostListener> {
  const { names, stack, address, port, networks, upstreams = [], log = SILENT } = options
  const transport = new SocketTransport({ host: stack, sandbox: stack })
  const forwarder = new Forwarder(transport)
  const view = {
    sandboxId: 'host',
    networks: networks ?? [],
    links: {},
    upstreams,
    searchDomains: [],
    ndotsFromUser: false,
    external: true,
  }
  const responder = new Responder(
    zonesOf(names),
    view,
    forwarder,
    { nobody: RCODE.REFUSED, all: networks === undefined, ownUpstreamsOnly: true },
    log,
  )
  const server = await named(`the listener on ${address} port ${port}`, { address, port }, async () => {
    for (let attempt = 1; ; attempt++) {
      try {
        const tried = port || randomInt(...CHOSEN_PORTS)
        return await listen(stack, responder, address, { udp: tried, tcp: tried }, log)
      } catch (error) {
        // UDP and TCP need the same port, so it is not the kernel that chooses.
        if (port !== 0 || attempt === 10) throw error
      }
    }
  })
  return {
    address,
    port: server.udpPort,
    statistics: () => ({ ...responder.statistics(), unsent: server.udp.lost() }),
    async close() {
      forwarder.close()
      transport.close()
      await server.close()
    },
  }
}

export const resolveName: ResolveName = (names, view, name, family) =>
  zonesOf(names).addresses(view, name, family)

export const resolveIp: ResolveIp = (names, view, ip) => zonesOf(names).reverse(view, ip)

/** Text only for stacks that take nothing else: each libnftables context costs a descriptor, and must have one below 1024. */
function redirect(stack: Stack, ports: RedirectPorts, before: Present | undefined): void {
  if (!stack.nftBatch) {
    stack.nft(redirectRules(ports))
    return
  }
  if (before?.ports?.udp === ports.udp && before.ports.tcp === ports.tcp) return
  try {
    if (before?.some) {
      stack.nftBatch(replaceRedirectBatch(ports))
      return
    }
    stack.nftBatch(redirectBatch(ports))
  } catch (error) {
    // Rules of an earlier resolver are there.
    if (!isCnmError(error, 'ERR_FIREWALL') || error.details.errno !== 'EEXIST') throw error
    stack.nftBatch(replaceRedirectBatch(ports))
  }
}

/** What stands in the sandbox: `ports` when it is just what we would make for them. */
interface Present {
  some: boolean
  ports?: RedirectPorts
}

function present(stack: Stack): Present | undefined {
  if (!stack.nftRules) return undefined
  const listing = stack.nftRules('ip', REDIRECT_TABLE)
  return { some: listing.length > 0, ports: redirectedPorts(listing) }
}

function undirect(stack: Stack): void {
  if (stack.nftBatch) stack.nftBatch(noRedirectBatch())
  else stack.nft(noRedirect())
}

/** One for UDP, another for TCP. */
const CHOSEN_BY_KERNEL: RedirectPorts = { udp: 0, tcp: 0 }

async function listen(
  stack: Stack,
  responder: Responder,
  address: string,
  ports: RedirectPorts,
  log: Logger,
): Promise<DnsServer> {
  const udp = stack.openSocket({ type: 'udp', address, port: ports.udp })
  let tcp = -1
  let server: UdpServer
  try {
    tcp = stack.openSocket({
      type: 'tcp',
      address,
      port: ports.tcp,
      listen: BACKLOG,
      reuseAddress: ports.tcp !== 0,
    })
    server = serveUdp(stack, udp, responder, log)
  } catch (error) {
    stack.closeFd(udp)
    if (tcp >= 0) stack.closeFd(tcp)
    throw error
  }
  return DnsServer.open(responder, server, tcp, log)
}

async function named<T>(what: string, details: object, body: () => Promise<T>): Promise<T> {
  try {
    return await body()
  } catch (cause) {
    throw new CnmError(
      'ERR_NAMES',
      `${what} could not start: ${(cause as Error).message}`,
      { ...details },
      { cause },
    )
  }
}

function zonesOf(names: Names): Zones {
  if (names instanceof Zones) return names
  throw new CnmError('ERR_INTERNAL', 'names must come from openNames()')
}
