/** Bodies of the container requests; names are Docker's. */
import { z } from 'zod'
import { body, EndpointSettings } from 'libcnm/api'

const { flag, int, listOf, struct, text, texts } = body

const Binding = struct({ HostIp: text(), HostPort: text() })
const Ports = z.record(z.string(), z.unknown()).optional()

export const ContainerRequest = struct({
  Image: text(),
  Cmd: listOf(text()),
  Entrypoint: listOf(text()),
  Env: listOf(text()),
  WorkingDir: text(),
  Hostname: text(),
  Domainname: text(),
  MacAddress: text(),
  Tty: flag(),
  OpenStdin: flag(),
  StdinOnce: flag(),
  Labels: texts(),
  ExposedPorts: Ports,
  StopSignal: text(),
  StopTimeout: int(),
  HostConfig: struct({
    NetworkMode: text(),
    PortBindings: z.record(z.string(), z.array(Binding).nullable()).optional(),
    PublishAllPorts: flag(),
    AutoRemove: flag(),
    Links: listOf(text()),
    Dns: listOf(text()),
    DnsSearch: listOf(text()),
    DnsOptions: listOf(text()),
    ExtraHosts: listOf(text()),
  }).optional(),
  NetworkingConfig: struct({
    EndpointsConfig: z.record(z.string(), EndpointSettings.nullable()).optional(),
  }).optional(),
})
export type ContainerRequest = z.output<typeof ContainerRequest>

export const ExecRequest = struct({
  Cmd: listOf(text()),
  Env: listOf(text()),
  WorkingDir: text(),
  User: text(),
  Tty: flag(),
  AttachStdin: flag(),
  AttachStdout: flag(),
  AttachStderr: flag(),
})
export type ExecRequest = z.output<typeof ExecRequest>

export const ExecStart = struct({ Detach: flag(), Tty: flag() })

/** Words of a command, as they are: an empty one is a word, too. */
export const words = (list: readonly (string | undefined)[] | undefined): string[] =>
  (list ?? []).map(word => word ?? '')

/** Go sends empty and null where nothing is meant. */
export const given = (list: readonly (string | undefined)[] | undefined): string[] =>
  (list ?? []).filter((value): value is string => Boolean(value))
