/** A LAN beyond the host's uplink, with dnsmasq as its DHCP server. */
import { type ChildProcess, spawn } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Stack } from 'libcnm'
import type { TestHost } from '../../support/host'

export interface DhcpServer {
  /** What it lends at present, a line each: expiry, MAC, address, name, client id. */
  leases(): string[]
  /** What it said, from the beginning. */
  log(): string
  stop(): Promise<void>
}

/** Of `where`, on its eth0. Resolves when it is ready. */
export async function startDnsmasq(host: TestHost, where: Stack, ...options: string[]): Promise<DhcpServer> {
  const leaseFile = join(host.directory, 'leases')
  writeFileSync(leaseFile, '', { flag: 'a' })
  const child: ChildProcess = where.run(() =>
    spawn(
      'dnsmasq',
      [
        '--keep-in-foreground',
        '--conf-file=/dev/null',
        '--interface=eth0',
        '--bind-dynamic',
        '--log-facility=-',
        '--log-dhcp',
        '--no-ping',
        '--user=root',
        `--dhcp-leasefile=${leaseFile}`,
        `--pid-file=${join(host.directory, 'dnsmasq.pid')}`,
        ...options,
      ],
      { stdio: ['ignore', 'pipe', 'pipe'] },
    ),
  )
  let said = ''
  const gone = new Promise<void>(resolve => child.on('close', () => resolve()))
  for (const stream of [child.stdout, child.stderr])
    stream?.on('data', data => {
      said += data
    })
  const stop = async () => {
    child.kill('SIGKILL')
    await gone
  }
  host.atEnd(stop)
  await until(
    () => said.includes('DHCP, '),
    () => `dnsmasq did not start: ${said}`,
  )
  return {
    leases: () =>
      readFileSync(leaseFile, 'utf8')
        .split('\n')
        .filter(line => line && !line.startsWith('duid')),
    log: () => said,
    stop,
  }
}

export async function until(met: () => boolean, what: () => string, patience = 60_000): Promise<void> {
  const end = Date.now() + patience
  while (!met()) {
    if (Date.now() > end) throw new Error(what())
    await new Promise(resolve => setTimeout(resolve, 20))
  }
}

/** What a program prints, while this process goes on (its resolver may be the one that is asked). */
export function output(where: Stack, program: string, ...parameters: string[]): Promise<string> {
  const child = where.run(() => spawn(program, parameters, { stdio: ['ignore', 'pipe', 'inherit'] }))
  let said = ''
  child.stdout?.on('data', data => {
    said += data
  })
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('close', () => resolve(said))
  })
}
