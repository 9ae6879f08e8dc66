/**
 * Every failure that leaves this library is a {@link CnmError}. Match by `code`, never by message and never by
 * `instanceof` (two copies of a package, and Jest, break `instanceof`).
 */

/** What sort of failure it is; the HTTP status, the exit code and the question "may I retry?" follow from it. */
export type ErrorKind =
  | 'invalid' // the caller asked for something malformed; asking again will not help
  | 'not-found'
  | 'conflict' // it clashes with something that exists
  | 'exhausted' // addresses, pools or ports have run out
  | 'denied' // a rule of the model or a missing privilege forbids it
  | 'unsupported' // this kernel, driver or family cannot do it
  | 'unavailable' // something outside (a plugin, the store, a name server) does not answer; may pass
  | 'kernel' // the kernel refused; `details.errno` says why
  | 'internal' // a defect of this library

/** The one table of errors: code → kind, and what to do next. The README prints it and a test holds it to that. */
export const ERRORS = {
  // input
  ERR_INVALID_OPTION: { kind: 'invalid', next: 'correct the option that the message names' },
  ERR_INVALID_NAME: { kind: 'invalid', next: 'choose a name of the form that the message shows' },
  ERR_INVALID_CIDR: { kind: 'invalid', next: 'give ADDRESS/LENGTH with the host bits zero' },
  ERR_INVALID_ADDRESS: {
    kind: 'invalid',
    next: 'give an address of the family and subnet that the message names',
  },
  ERR_INVALID_CONFIG: { kind: 'invalid', next: 'correct every point that the message lists' },
  // nouns
  ERR_NETWORK_NOT_FOUND: { kind: 'not-found', next: 'list the networks; create it first' },
  ERR_ENDPOINT_NOT_FOUND: { kind: 'not-found', next: 'list the endpoints of the network' },
  ERR_SANDBOX_NOT_FOUND: { kind: 'not-found', next: 'list the sandboxes; create it first' },
  ERR_SERVICE_NOT_FOUND: { kind: 'not-found', next: 'list the services; create it first' },
  ERR_DRIVER_NOT_FOUND: {
    kind: 'not-found',
    next: 'register the driver, or use one of those that the message lists',
  },
  ERR_AMBIGUOUS: { kind: 'invalid', next: 'give more characters of the id' },
  ERR_NETWORK_EXISTS: { kind: 'conflict', next: 'use the existing network, or another name' },
  ERR_ENDPOINT_EXISTS: { kind: 'conflict', next: 'use another endpoint name on this network' },
  ERR_SANDBOX_EXISTS: { kind: 'conflict', next: 'delete the sandbox of this container first' },
  ERR_SERVICE_EXISTS: {
    kind: 'conflict',
    next: 'use the existing service, or another name or published port',
  },
  ERR_CONTROLLER_EXISTS: {
    kind: 'conflict',
    next: 'close the other controller, or give this one another name',
  },
  ERR_DRIVER_EXISTS: { kind: 'conflict', next: 'register under another name' },
  ERR_NETWORK_IN_USE: { kind: 'denied', next: 'delete the endpoints that the message lists' },
  ERR_ENDPOINT_IN_USE: { kind: 'denied', next: 'let the endpoint leave its sandbox, or force' },
  ERR_ENDPOINT_JOINED: { kind: 'denied', next: 'let it leave its present sandbox first' },
  ERR_ENDPOINT_NOT_JOINED: { kind: 'denied', next: 'join the endpoint first' },
  ERR_SANDBOX_IN_USE: { kind: 'denied', next: 'let the endpoints leave first, or force' },
  ERR_PREDEFINED: { kind: 'denied', next: 'use a network of your own; this one is made by the controller' },
  ERR_SINGLE_INSTANCE: { kind: 'denied', next: 'use the one network that this driver has' },
  ERR_CONFIG_ONLY: { kind: 'denied', next: 'create a network with configFrom naming this one' },
  ERR_CLOSED: { kind: 'denied', next: 'open a new controller' },
  ERR_GONE: { kind: 'not-found', next: 'the object was deleted; look it up again' },
  ERR_SCOPE: { kind: 'denied', next: 'choose a scope that the driver offers' },
  // addresses
  ERR_ADDRESS_SPACE: { kind: 'invalid', next: 'use one of the address spaces that the message lists' },
  ERR_POOL_INVALID: { kind: 'invalid', next: 'correct the pool' },
  ERR_POOL_NOT_FOUND: { kind: 'not-found', next: 'allocate the pool first' },
  ERR_POOL_OVERLAP: {
    kind: 'conflict',
    next: 'choose a subnet that does not overlap, or none to have one chosen',
  },
  ERR_POOL_EXHAUSTED: { kind: 'exhausted', next: 'release addresses, or create a larger network' },
  ERR_POOLS_EXHAUSTED: {
    kind: 'exhausted',
    next: 'delete networks, or configure more default address pools',
  },
  ERR_ADDRESS_IN_USE: { kind: 'conflict', next: 'choose another address' },
  ERR_ADDRESS_OUT_OF_RANGE: { kind: 'invalid', next: 'choose an address inside the pool' },
  ERR_ADDRESS_NOT_OWNED: { kind: 'denied', next: 'only the owner releases an address' },
  ERR_ADDRESS_NOT_ALLOCATED: { kind: 'not-found', next: 'nothing to release' },
  ERR_IPAM_DRIVER: {
    kind: 'unavailable',
    next: 'the IPAM driver answered against its contract; report it to its author',
  },
  ERR_LEASE: {
    kind: 'unavailable',
    next: 'see that a DHCP server answers on the link that the message names, and has free addresses',
  },
  ERR_HOST_ROUTE_CONFLICT: { kind: 'conflict', next: 'choose another subnet, or set ipam.force' },
  // kernel
  ERR_KERNEL: { kind: 'kernel', next: 'see details.errno and the message of the kernel' },
  ERR_NETNS_NOT_FOUND: {
    kind: 'not-found',
    next: 'give the path of a network namespace; a sandbox whose own is gone is to be created again',
  },
  ERR_NETNS_EXISTS: { kind: 'conflict', next: 'another namespace is bound to this path' },
  ERR_LINK_EXISTS: { kind: 'conflict', next: 'choose another interface name' },
  ERR_LINK_NOT_FOUND: { kind: 'not-found', next: 'check the interface name' },
  ERR_LINK_CONFLICT: { kind: 'conflict', next: 'an existing link does not fit; see the message' },
  ERR_ROUTE_CONFLICT: {
    kind: 'conflict',
    next: 'choose a subnet that does not overlap a route of the sandbox',
  },
  ERR_GATEWAY_UNREACHABLE: { kind: 'invalid', next: 'give a gateway inside a directly connected subnet' },
  ERR_PRIVILEGE: {
    kind: 'denied',
    next: 'run as root, with CAP_NET_ADMIN and CAP_SYS_ADMIN, or in a user namespace',
  },
  ERR_UNSUPPORTED: { kind: 'unsupported', next: 'use a kernel or driver that has the feature' },
  // ports and firewall
  ERR_INVALID_PORT: {
    kind: 'invalid',
    next: 'correct the port, range, protocol or host address that the message names',
  },
  ERR_PORT_IN_USE: {
    kind: 'conflict',
    next: 'choose another host port, or stop the holder that the message names',
  },
  ERR_PORTS_EXHAUSTED: { kind: 'exhausted', next: 'widen the range, or unpublish ports' },
  ERR_FIREWALL: { kind: 'kernel', next: 'see the message of the firewall; the ruleset is as it was' },
  ERR_FIREWALL_UNAVAILABLE: {
    kind: 'unsupported',
    next: 'install libnftables1 (or iptables), or open the controller with firewall: "none"',
  },
  ERR_FORWARDING: {
    kind: 'denied',
    next: 'set net.ipv4.ip_forward=1 (and IPv6), or open with ipForward: true',
  },
  // names
  ERR_NAMES: { kind: 'unavailable', next: 'see the cause; the resolver of the sandbox could not start' },
  ERR_FILES: {
    kind: 'unavailable',
    next: 'see the cause; the files of the sandbox could not be written',
  },
  // store
  ERR_STORE_LOCKED: {
    kind: 'conflict',
    next: 'stop the process that the message names, or use another dataDir',
  },
  ERR_STORE_VERSION: { kind: 'unsupported', next: 'use the newer libcnm that wrote this store' },
  ERR_STORE_DAMAGED: { kind: 'internal', next: 'the record was set aside; see the message' },
  ERR_STORE: { kind: 'unavailable', next: 'see the cause; nothing was changed' },
  // cluster
  ERR_CLUSTER_UNAVAILABLE: {
    kind: 'unavailable',
    next: 'see that etcd answers at its endpoints; what runs goes on, networks of this host alone work meanwhile',
  },
  ERR_CLUSTER_DENIED: {
    kind: 'denied',
    next: 'correct cluster.credentials, or grant the user the rights on the prefix',
  },
  ERR_CLUSTER_FULL: {
    kind: 'exhausted',
    next: 'compact and defragment etcd, clear its alarm, or raise its quota',
  },
  ERR_CLUSTER_REQUIRED: { kind: 'denied', next: 'open the controller with cluster: { endpoints, host }' },
  ERR_CLUSTER_HOST: { kind: 'conflict', next: 'give this host another cluster.host.name' },
  ERR_CLUSTER_CONFLICT: { kind: 'conflict', next: 'look again and try once more; another host was faster' },
  ERR_CLUSTER: { kind: 'internal', next: 'please report it with the stack' },
  ERR_SEGMENT_IN_USE: { kind: 'conflict', next: 'choose another VXLAN id, or none to have one chosen' },
  ERR_SEGMENTS_EXHAUSTED: { kind: 'exhausted', next: 'delete networks that nobody uses' },
  // plugins
  ERR_PLUGIN: { kind: 'unavailable', next: 'see the log of the plugin' },
  // API
  ERR_API_IN_USE: {
    kind: 'conflict',
    next: 'choose another path, or stop the process that listens there',
  },
  // everything else
  ERR_TIMEOUT: { kind: 'unavailable', next: 'try again' },
  ERR_ROLLBACK: { kind: 'internal', next: 'run repair(); error.rollback lists what could not be undone' },
  ERR_INTERNAL: { kind: 'internal', next: 'please report it with the stack' },
} as const satisfies Record<string, { kind: ErrorKind; next: string }>

export type ErrorCode = keyof typeof ERRORS

export interface CnmErrorOptions {
  cause?: unknown
}

/** Characters. A message quotes what was handed in, which may be anything; details have it in full. */
const LONGEST = 2_000

export class CnmError extends Error {
  override readonly name = 'CnmError'
  readonly code: ErrorCode
  readonly kind: ErrorKind
  /** Ids and values that the message speaks of, for programs. */
  readonly details: Readonly<Record<string, unknown>>
  /** What could not be undone after this failure; absent when the state is as it was before. */
  rollback?: unknown[]

  constructor(
    code: ErrorCode,
    message: string,
    details: Record<string, unknown> = {},
    options: CnmErrorOptions = {},
  ) {
    super(message.length > LONGEST ? `${message.slice(0, LONGEST)}...` : message, options)
    this.code = code
    this.kind = ERRORS[code].kind
    this.details = details
  }

  /** What to do next, in a sentence. */
  get next(): string {
    return ERRORS[this.code].next
  }

  toJSON() {
    return { code: this.code, kind: this.kind, message: this.message, next: this.next, details: this.details }
  }
}

/** True for a CnmError (of whichever copy of this library), optionally of one of the codes given. */
export function isCnmError(error: unknown, ...codes: ErrorCode[]): error is CnmError {
  const candidate = error as CnmError | undefined
  if (candidate?.name !== 'CnmError' || typeof candidate.code !== 'string') return false
  return codes.length === 0 || codes.includes(candidate.code)
}
