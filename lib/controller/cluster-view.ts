import { CnmError } from '../base/errors'
import type { Cluster } from '../cluster/cluster'
import type { Context } from '../core/context'
import type { Spanning } from '../core/spanning'

/** What `controller.cluster` tells. */
export interface ClusterView {
  readonly host: { name: string; address: string }
  /** Which store, where. */
  readonly store: string
  /** False: what spans hosts cannot be changed now. */
  readonly connected: boolean
  /** Those that live, this one included. */
  readonly hosts: { name: string; address: string }[]
  /** Frees the addresses of a host that will not come back. Throws ERR_CLUSTER_HOST while it lives. */
  forgetHost(name: string): Promise<number>
  /**
   * Changes the key of encrypted networks (made if there is none) without loss; done by itself every `cluster.keyLifetime`
   * seconds. Resolves to the new key's number, when all hosts send with it. Throws ERR_CLUSTER_CONFLICT naming those that do not.
   */
  rotateKeys(): Promise<number>
}

export function clusterView({ cluster, spanning }: Context): ClusterView | undefined {
  return (
    cluster && {
      host: cluster.host,
      store: cluster.store,
      connected: cluster.connected,
      hosts: cluster.all('host').map(({ name, address }) => ({ name, address })),
      forgetHost: name => forgetHost(cluster, name),
      rotateKeys: () => (spanning as Spanning).rotateKeys(),
    }
  )
}

async function forgetHost(cluster: Cluster, name: string): Promise<number> {
  if (cluster.get('host', name))
    throw new CnmError('ERR_CLUSTER_HOST', `host ${name} is alive; it releases what it has itself`, {
      host: name,
    })
  return cluster.claims.forgetHost(name)
}
