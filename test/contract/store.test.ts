import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type MemoryRecords, MemoryStore } from '../../lib/store/memory'
import { openStore } from '../../lib/store/open'
import { storeSuite } from './store-suite'

describe('memory', () =>
  storeSuite(async () => {
    const records: MemoryRecords = new Map()
    return {
      open: async schemas => new MemoryStore({ records, schemas }),
      remove: async () => records.clear(),
    }
  }))

describe('lmdb', () =>
  storeSuite(async () => {
    const dataDir = mkdtempSync(join(tmpdir(), 'libcnm-store-'))
    return {
      open: schemas => openStore({ dataDir, schemas }),
      remove: async () => rmSync(dataDir, { recursive: true }),
    }
  }))
