/** /_ping, /version, /info: what a client asks before it asks for anything. */
import { readFileSync } from 'node:fs'
import { arch, cpus, hostname, release, totalmem } from 'node:os'
import type { Controller } from '../controller'
import { type Containers, sandboxesAsContainers } from './containers'
import type { Exchange, Router } from './router'
import { API_VERSION, MIN_API_VERSION, VERSION } from './version'

/** As Go calls the processors that Node runs on. */
const ARCH: Record<string, string> = { x64: 'amd64', ia32: '386' }

export function addSystemRoutes(router: Router, controller: Controller, containers: Containers): void {
  const ping = (exchange: Exchange) => {
    exchange.response.setHeader('Cache-Control', 'no-cache, no-store, must-revalidate')
    exchange.response.setHeader('Pragma', 'no-cache')
    exchange.response.setHeader('Builder-Version', '1')
    exchange.response.setHeader('Swarm', 'inactive')
    exchange.sendText(200, 'OK')
  }
  router
    .route('GET', '/_ping', ping)
    .route('HEAD', '/_ping', ping)
    .route('GET', '/version', version)
    .route('GET', '/info', () => info(controller, containers))
}

function version() {
  const platform = { Os: 'linux', Arch: ARCH[arch()] ?? arch(), KernelVersion: release() }
  return {
    Platform: { Name: 'libcnm' },
    Components: [
      {
        Name: 'Engine',
        Version: VERSION,
        Details: {
          ApiVersion: API_VERSION,
          MinAPIVersion: MIN_API_VERSION,
          NodeVersion: process.versions.node,
          ...platform,
        },
      },
    ],
    Version: VERSION,
    ApiVersion: API_VERSION,
    MinAPIVersion: MIN_API_VERSION,
    GitCommit: '',
    GoVersion: '',
    ...platform,
    BuildTime: '',
  }
}

function info(controller: Controller, containers: Containers) {
  const { running, stopped } = containers.count?.() ??
    sandboxesAsContainers(controller).count?.() ?? { running: 0, stopped: 0 }
  return {
    ID: controller.name,
    Containers: running + stopped,
    ContainersRunning: running,
    ContainersPaused: 0,
    ContainersStopped: stopped,
    Images: 0,
    Driver: 'none',
    DriverStatus: [],
    Plugins: { Volume: [], Network: controller.drivers().network, Authorization: null, Log: [] },
    IPv4Forwarding: forwarding(),
    BridgeNfIptables: false,
    BridgeNfIp6tables: false,
    Debug: false,
    NEventsListener: 0,
    SystemTime: new Date().toISOString(),
    LoggingDriver: 'none',
    CgroupDriver: 'none',
    KernelVersion: release(),
    OperatingSystem: osName(),
    OSType: 'linux',
    Architecture: process.arch === 'x64' ? 'x86_64' : process.arch,
    NCPU: cpus().length,
    MemTotal: totalmem(),
    DockerRootDir: '',
    Name: hostname(),
    Labels: [],
    ExperimentalBuild: false,
    ServerVersion: VERSION,
    Runtimes: {},
    DefaultRuntime: '',
    Swarm: { NodeID: '', LocalNodeState: 'inactive', ControlAvailable: false },
    FirewallBackend: { Driver: controller.firewallBackend },
    SecurityOptions: [],
    Warnings: null,
  }
}

function forwarding(): boolean {
  try {
    return readFileSync('/proc/sys/net/ipv4/ip_forward', 'utf8').trim() === '1'
  } catch {
    return false
  }
}

function osName(): string {
  try {
    return /^PRETTY_NAME="?([^"\n]*)/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1] ?? 'Linux'
  } catch {
    return 'Linux'
  }
}
