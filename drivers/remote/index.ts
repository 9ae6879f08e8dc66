import type { Plugins } from './client'
import { PLUGIN_NAME } from './discovery'
import { RemoteDriver } from './driver'
import { RemoteIpamDriver } from '../ipam/remote'

/** For the registries: the plugin of a name that nobody registered. A name that is no plugin's is not looked for. */
export async function loadDriver(plugins: Plugins, name: string): Promise<RemoteDriver | undefined> {
  const client = PLUGIN_NAME.test(name) ? await plugins.client(name, 'NetworkDriver') : undefined
  return client && RemoteDriver.open(client)
}

export async function loadIpamDriver(plugins: Plugins, name: string): Promise<RemoteIpamDriver | undefined> {
  const client = PLUGIN_NAME.test(name) ? await plugins.client(name, 'IpamDriver') : undefined
  return client && RemoteIpamDriver.open(client)
}
