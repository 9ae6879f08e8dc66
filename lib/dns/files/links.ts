import type { HostsEntry } from './contract'

/** What `--link TARGET:ALIAS` on the default bridge tells the linking container of its target. */
export interface Link {
  alias: string
  /** Name of the container that links. */
  parent: string
  target: {
    name: string
    hostname: string
    address: string
    /** What the target exposes. */
    ports: { port: number; protocol: string }[]
    /** `NAME=value`, as the target was started with. */
    environment: string[]
  }
}

/** Set by every image and of no use to others. */
const PRIVATE = new Set(['HOME', 'PATH'])

/** The line of the linking container's /etc/hosts. */
export function linkHosts({ alias, target }: Link): HostsEntry {
  return { address: target.address, names: [...new Set([alias, target.hostname, target.name])] }
}

/** The environment variables that the linking container is started with, in Docker's order: `NAME=value`. */
export function linkEnvironment({ alias, parent, target }: Link): string[] {
  const prefix = alias.toUpperCase().replaceAll('-', '_')
  const ports = [...target.ports].sort(
    (a, b) => a.port - b.port || Number(b.protocol === 'tcp') - Number(a.protocol === 'tcp'),
  )
  const url = ({ port, protocol }: { port: number; protocol: string }) =>
    `${protocol}://${target.address}:${port}`
  const [first] = ports
  const variables = first ? [`${prefix}_PORT=${url(first)}`] : []
  for (const each of ports) {
    const name = `${prefix}_PORT_${each.port}_${each.protocol.toUpperCase()}`
    variables.push(
      `${name}=${url(each)}`,
      `${name}_ADDR=${target.address}`,
      `${name}_PORT=${each.port}`,
      `${name}_PROTO=${each.protocol}`,
    )
  }
  variables.push(`${prefix}_NAME=/${parent}/${alias}`)
  for (const variable of target.environment) {
    const equals = variable.indexOf('=')
    if (equals > 0 && !PRIVATE.has(variable.slice(0, equals))) variables.push(`${prefix}_ENV_${variable}`)
  }
  return variables
}
