/** Exchanges of Docker's plugin protocol, every call and every field of it: what is asked, and what was answered. */
const NetworkID = 'a'.repeat(64)
const EndpointID = 'b'.repeat(64)
const ids = { NetworkID, EndpointID }
const Generic = {
  'com.docker.network.enable_ipv4': true,
  'com.docker.network.enable_ipv6': true,
  'com.docker.network.internal': true,
  'com.docker.network.generic': { 'com.example.zone': 'east', depth: '3' },
}
const pools = {
  IPv4Data: [
    {
      AddressSpace: 'GlobalDefault',
      Pool: '10.1.0.0/24',
      Gateway: '10.1.0.1/24',
      AuxAddresses: { router: '10.1.0.9/24' },
    },
  ],
  IPv6Data: [
    { AddressSpace: 'GlobalDefault', Pool: 'fd00:1::/64', Gateway: 'fd00:1::1/64', AuxAddresses: {} },
  ],
}

export const network = {
  answers: {
    'NetworkDriver.GetCapabilities': { Scope: 'global', ConnectivityScope: 'local', GwAllocChecker: true },
    'NetworkDriver.GwAllocCheck': { SkipIPv4: false, SkipIPv6: true },
    'NetworkDriver.AllocateNetwork': { Options: { vni: '7' } },
    'NetworkDriver.CreateNetwork': {},
    'NetworkDriver.CreateEndpoint': {
      Interface: { Address: '10.1.0.7/24', AddressIPv6: 'fd00:1::7/64', MacAddress: '02:00:00:00:00:07' },
    },
    'NetworkDriver.EndpointOperInfo': { Value: { tunnel: 'up' } },
    'NetworkDriver.Join': {
      InterfaceName: { SrcName: 'tap7', DstName: 'ignored', DstPrefix: 'tun' },
      Gateway: '10.1.0.1',
      GatewayIPv6: '',
      StaticRoutes: [
        { Destination: '10.9.0.0/16', RouteType: 0, NextHop: '10.1.0.4' },
        { Destination: '10.8.0.0/16', RouteType: 1, NextHop: '' },
        { Destination: '::/0', RouteType: 1 },
      ],
      DisableGatewayService: true,
    },
    'NetworkDriver.ProgramExternalConnectivity': {},
    'NetworkDriver.RevokeExternalConnectivity': {},
    'NetworkDriver.Leave': {},
    'NetworkDriver.DeleteEndpoint': {},
    'NetworkDriver.DeleteNetwork': {},
    'NetworkDriver.FreeNetwork': {},
    'NetworkDriver.DiscoverNew': {},
    'NetworkDriver.DiscoverDelete': {},
  },
  asked: [
    { method: 'Plugin.Activate' },
    { method: 'NetworkDriver.GetCapabilities' },
    { method: 'NetworkDriver.GwAllocCheck', body: { Options: Generic } },
    { method: 'NetworkDriver.AllocateNetwork', body: { NetworkID, Options: { a: 'b' }, ...pools } },
    { method: 'NetworkDriver.CreateNetwork', body: { NetworkID, Options: Generic, ...pools } },
    {
      method: 'NetworkDriver.CreateEndpoint',
      body: {
        ...ids,
        Interface: { Address: '', AddressIPv6: '', MacAddress: '' },
        Options: { color: 'red' },
      },
    },
    { method: 'NetworkDriver.EndpointOperInfo', body: ids },
    {
      method: 'NetworkDriver.Join',
      body: { ...ids, SandboxKey: '/run/ns/s', Options: { x: 1, color: 'red' } },
    },
    { method: 'NetworkDriver.ProgramExternalConnectivity', body: { ...ids, Options: { p: 1 } } },
    { method: 'NetworkDriver.RevokeExternalConnectivity', body: ids },
    { method: 'NetworkDriver.Leave', body: ids },
    { method: 'NetworkDriver.DeleteEndpoint', body: ids },
    { method: 'NetworkDriver.DeleteNetwork', body: { NetworkID } },
    { method: 'NetworkDriver.FreeNetwork', body: { NetworkID } },
    {
      method: 'NetworkDriver.DiscoverNew',
      body: { DiscoveryType: 1, DiscoveryData: { Address: '192.0.2.1', Self: true } },
    },
    {
      method: 'NetworkDriver.DiscoverDelete',
      body: { DiscoveryType: 1, DiscoveryData: { Address: '192.0.2.1', Self: false } },
    },
  ],
}

export const ipam = {
  answers: {
    'IpamDriver.GetCapabilities': { RequiresMACAddress: true, RequiresRequestReplay: true },
    'IpamDriver.GetDefaultAddressSpaces': {
      LocalDefaultAddressSpace: 'here',
      GlobalDefaultAddressSpace: 'there',
    },
    'IpamDriver.RequestPool': {
      PoolID: 'p1',
      Pool: '10.1.0.0/16',
      Data: { 'com.docker.network.gateway': '10.1.0.254/16', extra: 'yes' },
    },
    'IpamDriver.RequestAddress': { Address: '10.1.1.5/16', Data: { d: 'e' } },
    'IpamDriver.ReleaseAddress': {},
    'IpamDriver.ReleasePool': {},
  },
  asked: [
    { method: 'Plugin.Activate' },
    { method: 'IpamDriver.GetCapabilities' },
    { method: 'IpamDriver.GetDefaultAddressSpaces' },
    {
      method: 'IpamDriver.RequestPool',
      body: {
        AddressSpace: 'here',
        Pool: '10.1.0.0/16',
        SubPool: '10.1.1.0/24',
        Options: { o: 'p' },
        V6: false,
      },
    },
    {
      method: 'IpamDriver.RequestAddress',
      body: {
        PoolID: 'p1',
        Address: '10.1.1.5',
        Options: { RequestAddressType: 'com.docker.network.gateway' },
      },
    },
    {
      method: 'IpamDriver.RequestAddress',
      body: {
        PoolID: 'p1',
        Address: '',
        Options: {
          q: 'r',
          'com.docker.network.endpoint.macaddress': '02:00:00:00:00:01',
          'com.docker.network.endpoint.name': 'web',
        },
      },
    },
    { method: 'IpamDriver.ReleaseAddress', body: { PoolID: 'p1', Address: '10.1.1.5' } },
    { method: 'IpamDriver.ReleasePool', body: { PoolID: 'p1' } },
  ],
}
