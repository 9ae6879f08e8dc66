import { randomInt } from 'node:crypto'
import { familyOf } from '../base/cidr'
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
import { noRedirect, redirectRules } from './redirect'
import { noRedirectBatch, redirectBatch, replaceRedirectBatch } from './redirect-batch'
import { Responder } from './responder'
import { DnsServer } from './server'
import { SocketTransport } from './transport'
import { serveUdp, type UdpServer } from './udp'
import { RCODE } from './wire'
import { Zones } from './zone'

const BACKLOG = 128
/** The dynamic ports (RFC 6335 6), when any will do. */
const CHOSEN_PORTS = [49152, 65536] as const

export const openNames = (): Names => new Zones()

/**
 * Answers on 127.0.0.11:53 inside a sandbox until closed. After the sandbox got another namespace (`setKey`), close it and
 * open one there. Throws ERR_NAMES.
 */
export async function openResolver(options: ResolverOptions): Promise<SandboxResolver> {
  const { stack, host, view, mode = 'redirect', log = SILENT } = options
  const transport = new SocketTransport({ host, sandbox: stack })
  const forwarder = new Forwarder(transport)
  const responder = new Responder(zonesOf(options.names), view, forwarder, undefined, log)
  const server = await named(`the resolver of sandbox ${view.sandboxId}`, { sandboxId: view.sandboxId }, () =>
    atomically(async undo => {
      const port = mode === 'direct' ? 53 : 0
      const opened = await listen(stack, responder, RESOLVER_ADDRESS, port, log)
      undo.push('close the resolver', () => opened.close())
      if (mode === 'redirect') redirect(stack, { udp: opened.udpPort, tcp: opened.tcpPort })
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
        return await listen(stack, responder, address, port || randomInt(...CHOSEN_PORTS), log)
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
function redirect(stack: Stack, ports: { udp: number; tcp: number }): void {
  if (!stack.nftBatch) {
    stack.nft(redirectRules(ports))
    return
  }
  try {
    stack.nftBatch(redirectBatch(ports))
  } catch (error) {
    // Rules of an earlier resolver are there.
    if (!isCnmError(error, 'ERR_FIREWALL') || error.details.errno !== 'EEXIST') throw error
    stack.nftBatch(replaceRedirectBatch(ports))
  }
}

function undirect(stack: Stack): void {
  if (stack.nftBatch) stack.nftBatch(noRedirectBatch())
  else stack.nft(noRedirect())
}

/** With port 0 the kernel chooses: one for UDP, another for TCP. */
async function listen(
  stack: Stack,
  responder: Responder,
  address: string,
  port: number,
  log: Logger,
): Promise<DnsServer> {
  const udp = stack.openSocket({ type: 'udp', address, port })
  let tcp = -1
  let server: UdpServer
  try {
    tcp = stack.openSocket({ type: 'tcp', address, port, listen: BACKLOG, reuseAddress: port !== 0 })
    server = await serveUdp(stack, udp, familyOf(address), responder, log)
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
