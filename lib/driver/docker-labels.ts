/** Every label of Docker's own for networks and endpoints, whichever driver reads it (daemon/libnetwork/netlabel and drivers). */

const PREFIX = 'com.docker.network.'

export const DOCKER_LABELS: ReadonlySet<string> = new Set(
  [
    'generic',
    'portmap',
    'enable_ipv4',
    'enable_ipv6',
    'gateway',
    'internal',
    'container_iface_prefix',
    'host_ipv4',
    'host_ipv6',
    'advertise_addr_nmsgs',
    'advertise_addr_ms',
    'ipam.serial',
    'endpoint.macaddress',
    'endpoint.exposedports',
    'endpoint.dnsservers',
    'endpoint.name',
    'endpoint.sysctls',
    'endpoint.ifname',
    'driver.mtu',
    'driver.overlay.vxlanid_list',
    'driver.overlay.bind_interface',
    'driver.overlay.neighbor_ip',
    'driver.private.no_proxy_6to4',
    'bridge.name',
    'bridge.enable_ip_masquerade',
    'bridge.enable_icc',
    'bridge.inhibit_ipv4',
    'bridge.host_binding_ipv4',
    'bridge.default_bridge',
    'bridge.gateway_mode_ipv4',
    'bridge.gateway_mode_ipv6',
    'bridge.trusted_host_interfaces',
  ].map(label => PREFIX + label),
)

/** Does it look like one of Docker's, rather than like another program's? */
export const isDockers = (key: string): boolean => key.startsWith(PREFIX)
