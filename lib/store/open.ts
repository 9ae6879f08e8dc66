import type { Logger } from '../base/log'
import type { Store } from './contract'
import { MemoryStore } from './memory'
import type { Schemas } from './migrate'

export interface OpenStoreOptions {
  /** Directory of the store's files; made when absent. Without it, memory. */
  dataDir?: string
  schemas?: Schemas
  log?: Logger
}

/** Throws ERR_STORE_LOCKED, ERR_STORE_VERSION, ERR_STORE. */
export async function openStore({ dataDir, schemas, log }: OpenStoreOptions = {}): Promise<Store> {
  if (dataDir === undefined) return new MemoryStore({ schemas })
  const { LmdbStore } = require('./lmdb') as typeof import('./lmdb') // here, because it loads native libraries
  return LmdbStore.open({ dataDir, schemas, log })
}
