import { join } from 'node:path'
import { CnmError, isCnmError } from '../../base/errors'
import { makeFolder } from '../../base/folder'
import { SILENT } from '../../base/log'
import type { FilePaths, FilesRequest, HostsEntry, OpenFiles, ResolverKind, SandboxFiles } from './contract'
import { type HostResolvConf, hostResolvConf } from './follow'
import { hostsLines, mergeHosts, parseExtraHost } from './hosts'
import { forEmbedded, forLegacy, formatResolvConf, override, parseResolvConf } from './resolvconf'
import { forResolvConf } from './upstreams'
import { digest, readText, removeFile, writeInPlace } from './writer'

/**
 * Digests of what we wrote last and the time before, so that edits are recognised after a restart too. Noted before the
 * file itself is written: after a crash between the two, the older text still counts as ours.
 */
interface Written {
  hosts: string[]
  resolvConf: string[]
}

export const openFiles: OpenFiles = request => {
  try {
    return new Files(request)
  } catch (cause) {
    if (isCnmError(cause)) throw cause
    throw filesError(request.directory, cause)
  }
}

class Files implements SandboxFiles {
  readonly paths: FilePaths
  readonly #state: string
  readonly #host: HostResolvConf
  #dns!: FilesRequest['dns']
  readonly #extra: HostsEntry[]
  readonly #entries = new Map<string, HostsEntry[]>()
  #links: HostsEntry[] = []
  readonly #written: Written
  /** Text of hosts that we know to be there; and which of its lines are ours. */
  #hostsText: string | undefined
  #hostsLines: string[] = []
  #last: { resolver: ResolverKind; ipv6: boolean } | undefined
  /** What resolv.conf was made from last. */
  #resolvText: string | undefined
  #hostnameDone = false
  readonly #stop: () => void

  constructor(readonly request: FilesRequest) {
    const { directory, dns, hostGateway = [] } = request
    this.setDns(dns)
    const gateways = typeof hostGateway === 'string' ? [hostGateway] : hostGateway
    this.#extra = request.extraHosts.flatMap(each => parseExtraHost(each, gateways))
    this.paths = {
      hosts: join(directory, 'hosts'),
      resolvConf: join(directory, 'resolv.conf'),
      hostname: join(directory, 'hostname'),
    }
    this.#state = join(directory, 'written')
    makeFolder(directory, 0o755)
    this.#written = readWritten(this.#state)
    this.#host = hostResolvConf(request.resolvConf)
    this.#stop = this.#host.follow(() => this.#hostChanged())
  }

  setEntries(owner: string, entries: HostsEntry[]): void {
    this.#entries.set(owner, entries)
  }

  removeEntries(owner: string): void {
    this.#entries.delete(owner)
  }

  setLinks(entries: HostsEntry[]): void {
    this.#links = entries
  }

  setDns(dns: FilesRequest['dns']): void {
    this.#dns = { ...dns, servers: forResolvConf(dns.servers) }
  }

  write(resolver: ResolverKind, ipv6: boolean): void {
    this.#last = { resolver, ipv6 }
    try {
      this.#writeHostname()
      this.#writeHosts(resolver, ipv6)
      this.#writeResolvConf(resolver, ipv6)
    } catch (cause) {
      this.#hostsText = this.#resolvText = undefined // whatever is there, look again
      throw filesError(this.request.directory, cause)
    }
  }

  remove(): void {
    for (const path of [...Object.values(this.paths), this.#state]) removeFile(path)
  }

  close(): void {
    this.#stop()
  }

  #writeHostname(): void {
    if (this.#hostnameDone) return
    const text = `${this.request.hostname}\n`
    if (readText(this.paths.hostname) !== text) writeInPlace(this.paths.hostname, text)
    this.#hostnameDone = true
  }

  #writeHosts(resolver: ResolverKind, ipv6: boolean): void {
    const lines =
      resolver === 'host' && this.#extra.length === 0
        ? (readText(this.request.hostsFile ?? '/etc/hosts') ?? '').replace(/\n$/, '').split('\n')
        : hostsLines(ipv6, this.#extra, this.#links, ...this.#entries.values())
    const whole = `${lines.join('\n')}\n`
    if (whole === this.#hostsText) return
    const current = readText(this.paths.hosts)
    const known = this.#written.hosts.includes(digest(whole))
    if (current === whole && known) {
      // as an earlier run left it
    } else if (
      current === undefined ||
      current === this.#hostsText ||
      this.#written.hosts.includes(digest(current))
    ) {
      this.#note('hosts', whole)
      writeInPlace(this.paths.hosts, whole)
    } else {
      const merged = mergeHosts(current, this.#hostsLines, lines)
      if (merged !== current) writeInPlace(this.paths.hosts, merged)
    }
    this.#hostsText = whole
    this.#hostsLines = lines
  }

  #writeResolvConf(resolver: ResolverKind, ipv6: boolean): void {
    const text = this.#resolvConf(resolver, ipv6)
    if (text === this.#resolvText) return
    const current = readText(this.paths.resolvConf)
    // Once edited, it is theirs.
    const ours = current === undefined || this.#written.resolvConf.includes(digest(current))
    if (ours && current !== text) {
      this.#note('resolvConf', text)
      writeInPlace(this.paths.resolvConf, text)
    }
    this.#resolvText = text
  }

  #note(file: keyof Written, text: string): void {
    const [last] = this.#written[file]
    this.#written[file] = last === undefined ? [digest(text)] : [digest(text), last]
    writeInPlace(this.#state, JSON.stringify(this.#written))
  }

  #resolvConf(resolver: ResolverKind, ipv6: boolean): string {
    const dns = this.#dns
    const { text } = this.#host
    const conf = parseResolvConf(text)
    if (resolver === 'embedded') return formatResolvConf(forEmbedded(override(conf, dns)))
    if (resolver === 'host') {
      const asked = dns.servers.length + dns.search.length + dns.options.length > 0
      return asked ? formatResolvConf(override(conf, dns)) : text
    }
    const changed = forLegacy(conf, dns, ipv6)
    return changed ? formatResolvConf(changed) : text
  }

  #hostChanged(): void {
    const { log = SILENT } = this.request
    try {
      if (this.#last) this.write(this.#last.resolver, this.#last.ipv6)
    } catch (error) {
      log.warn('the resolv.conf of a sandbox could not follow that of the host', { error })
    }
  }
}

function readWritten(path: string): Written {
  try {
    const { hosts = [], resolvConf = [] } = JSON.parse(readText(path) ?? '{}') as Partial<Written>
    return { hosts, resolvConf }
  } catch {
    return { hosts: [], resolvConf: [] } // cut short by a crash: both files then count as edited
  }
}

const filesError = (directory: string, cause: unknown): CnmError =>
  new CnmError(
    'ERR_FILES',
    `the files in ${directory} could not be written: ${(cause as Error).message}`,
    { directory, errno: (cause as NodeJS.ErrnoException).code },
    { cause },
  )
