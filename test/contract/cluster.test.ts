import { MemoryCluster } from '../../lib/cluster/memory'
import { clusterSuite } from '../../lib/testing/cluster-suite'

describe('memory', () => {
  let store: MemoryCluster
  clusterSuite({
    async open() {
      store = new MemoryCluster()
      return {
        one: store.backend(),
        two: store.backend(),
        prefix: '/test',
        close: async () => store.close(),
      }
    },
    compact: async () => store.compact(),
  })
})
