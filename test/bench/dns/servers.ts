import { createSocket } from 'node:dgram'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { SandboxView, Upstream } from '../../../lib/dns/contract'
import { openNames, openResolver } from '../../../lib/dns/resolver'
import type { ListenMode } from '../../../lib/dns/contract'
import { installed, LOAD_CORE, type Place, SERVER_CORE } from './place'

/** A server of the comparison: where it is asked, and how it is stopped. */
export interface Contestant {
  name: string
  address: string
  /** Microseconds of processor time that it has used. */
  cpu(): number
  close(): Promise<void>
}

export const CONTAINERS = 100
export const containerAddress = (i: number): string => `10.88.0.${i + 2}`
const UPSTREAM = '10.88.0.200'
const NETWORK = '10.88.0.1'

/** The least that a server of Node can do: say what it heard, with the bit that makes it an answer. */
export async function echo({ stack }: Place): Promise<Contestant> {
  const address = '127.0.0.12'
  const fd = stack.openSocket({ type: 'udp', address, port: 53 })
  const socket = createSocket('udp4')
  socket.on('message', (message, from) => {
    message[2] = (message[2] as number) | 0x80
    socket.send(message, 0, message.length, from.port, from.address)
  })
  await new Promise<void>(resolve => socket.bind({ fd }, resolve))
  return {
    name: 'bare Node dgram echo',
    address,
    cpu: ownCpu,
    close: () => new Promise<void>(resolve => socket.close(() => resolve())),
  }
}

export async function ours({ stack }: Place, mode: ListenMode): Promise<Contestant> {
  const names = openNames()
  names.setNetwork('n', { name: 'bench', internal: false, serves: true })
  for (let i = 0; i < CONTAINERS; i++)
    names.setEndpoint({
      endpointId: `e${i}`,
      networkId: 'n',
      networkName: 'bench',
      names: [`c${i}`],
      ipv4: containerAddress(i),
    })
  const upstreams: Upstream[] = [{ address: UPSTREAM, from: 'host' }]
  const view: SandboxView = {
    sandboxId: 'bench',
    networks: ['n'],
    links: {},
    upstreams,
    searchDomains: [],
    ndotsFromUser: false,
    external: true,
  }
  const resolver = await openResolver({ names, stack, host: stack, view, mode })
  return {
    name: `libcnm (${mode})`,
    address: '127.0.0.11',
    cpu: ownCpu,
    close: () => resolver.close(),
  }
}

/** What knows the outside: dnsmasq, which answers any name under out.test without asking. */
export async function upstream(place: Place): Promise<Contestant> {
  const child = place.start(
    LOAD_CORE,
    'dnsmasq',
    ...dnsmasqOptions(UPSTREAM),
    '--no-resolv',
    '--no-hosts',
    '--local-ttl=300',
    '--address=/out.test/198.51.100.7',
  )
  await place.answers(UPSTREAM, 'a.out.test')
  return { name: 'upstream', address: UPSTREAM, cpu: () => place.cpu(child), close: () => place.stop(child) }
}

export async function dnsmasq(place: Place): Promise<Contestant | undefined> {
  const address = '10.88.0.201'
  const hosts = join(place.directory, 'hosts')
  await writeFile(
    hosts,
    Array.from({ length: CONTAINERS }, (_, i) => `${containerAddress(i)} c${i}\n`).join(''),
  )
  const child = place.start(
    SERVER_CORE,
    'dnsmasq',
    ...dnsmasqOptions(address),
    '--no-hosts',
    `--addn-hosts=${hosts}`,
    '--no-resolv',
    `--server=${UPSTREAM}`,
    '--cache-size=10000',
  )
  await place.answers(address, 'c0')
  return { name: 'dnsmasq', address, cpu: () => place.cpu(child), close: () => place.stop(child) }
}

export async function aardvark(place: Place): Promise<Contestant | undefined> {
  const program = '/usr/lib/podman/aardvark-dns'
  if (!(await installed(program))) return undefined
  const directory = join(place.directory, 'aardvark')
  await mkdir(directory, { recursive: true })
  const id = (i: number) => i.toString(16).padStart(64, '0')
  const lines = Array.from({ length: CONTAINERS }, (_, i) => `${id(i)} ${containerAddress(i)}  c${i}`)
  await writeFile(join(directory, 'bench'), `${NETWORK}\n${lines.join('\n')}\n`)
  const conf = join(place.directory, 'aardvark-resolv.conf')
  await writeFile(conf, `nameserver ${UPSTREAM}\n`)
  // It reads /etc/resolv.conf: it gets one of its own.
  const child = place.start(
    SERVER_CORE,
    'unshare',
    '--mount',
    'sh',
    '-c',
    `mount --bind ${conf} "$(readlink -f /etc/resolv.conf)" && exec ${program} -c ${directory} -p 53 run`,
  )
  await place.answers(NETWORK, 'c0')
  return {
    name: 'aardvark-dns',
    address: NETWORK,
    cpu: () => place.cpu(child),
    close: () => place.stop(child),
  }
}

const ownCpu = (): number => {
  const { user, system } = process.cpuUsage()
  return user + system
}

const dnsmasqOptions = (address: string): string[] => [
  '--keep-in-foreground',
  '--conf-file=/dev/null',
  '--user=root',
  '--pid-file=',
  '--bind-interfaces',
  `--listen-address=${address}`,
  '--dns-forward-max=10000',
]
