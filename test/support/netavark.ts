/** What Podman makes its networks with: the real program on a host of the test's, for one container. */
import { spawnSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Stack } from 'libcnm'
import type { TestHost } from './host'

/** Debian's place; it is not for the user to call. */
const PROGRAM = '/usr/lib/podman/netavark'

export class PodmanContainer {
  private constructor(
    private readonly h: TestHost,
    private readonly request: string,
    readonly stack: Stack,
    readonly address: string,
  ) {}

  /** On the network 10.88.0.0/16 with bridge `podman0`, one port published. Its last number is `n`. */
  static async start(h: TestHost, n: number, hostPort: number): Promise<PodmanContainer> {
    const address = `10.88.0.${n}`
    const network = {
      name: 'podman',
      id: '2f259bab'.padEnd(64, '9'),
      driver: 'bridge',
      network_interface: 'podman0',
      subnets: [{ subnet: '10.88.0.0/16', gateway: '10.88.0.1' }],
      ipv6_enabled: false,
      internal: false,
      dns_enabled: false,
      ipam_options: { driver: 'host-local' },
    }
    const request = JSON.stringify({
      container_id: `${n}`.padStart(64, 'a'),
      container_name: `podman${n}`,
      networks: { podman: { static_ips: [address], interface_name: 'eth0' } },
      network_info: { podman: network },
      port_mappings: [{ host_ip: '', container_port: 80, host_port: hostPort, range: 1, protocol: 'tcp' }],
    })
    const container = new PodmanContainer(h, request, await h.namespace(`podman${n}`), address)
    container.#call('setup')
    await h.serve(container.stack, 80)
    return container
  }

  stop(): void {
    this.#call('teardown')
  }

  #call(verb: 'setup' | 'teardown'): void {
    const { h, request, stack } = this
    const directory = join(h.directory, 'netavark')
    mkdirSync(directory, { recursive: true })
    const { status, stdout, stderr } = h.host.run(() =>
      spawnSync(PROGRAM, ['--config', directory, verb, stack.path as string], {
        input: request,
        encoding: 'utf8',
        timeout: 30_000, // milliseconds
      }),
    )
    if (status !== 0)
      throw new Error(
        `netavark ${verb} failed; is netavark installed (.ci/packages.test)? ${stdout}${stderr}`,
      )
  }
}
