/**
 * What hosts share. A {@link Backend} is the bare key-value store (etcd, or one in memory for tests); the cluster on top of
 * it (`cluster.ts`) mirrors its records, keeps this host's lease and claims numbers and addresses by transactions.
 *
 * Below the prefix: `state/KIND/ID` is what every host watches; `claims/...` is looked at only by who claims.
 */
import { CnmError } from '../base/errors'

export interface KeyValue {
  key: string
  value: string
  /** Of the last change of this key. */
  revision: number
}

export interface Listing {
  entries: KeyValue[]
  /** Of the whole store when it was listed: a watch that begins at the next one misses nothing. */
  revision: number
}

export type Condition =
  | { key: string; is: 'absent' | 'present' }
  /** Not changed since it was read. */
  | { key: string; revision: number }
  /** No key begins with this. */
  | { prefix: string; is: 'empty' }
  | { key: string; value: string }

export interface Transaction {
  if?: Condition[]
  put?: { key: string; value: string; lease?: string }[]
  /** A key that is not there is fine. */
  remove?: string[]
  removePrefixes?: string[]
}

export interface Change {
  key: string
  /** Absent: removed. */
  value?: string
  revision: number
}

export interface WatchListener {
  /** In the order in which they happened; changes of one transaction come together. */
  changed(changes: Change[], revision: number): void
  /** The watch is over, and some changes may be missing: list again. Told once; not after `close`. */
  ended(error: unknown): void
}

/** Most operations that one {@link Transaction} may have (etcd: --max-txn-ops, 128 unless set). */
export const MAX_OPERATIONS = 128

/** The transaction with all its parts. Throws ERR_CLUSTER for one that no backend would take. */
export function whole(transaction: Transaction): Required<Transaction> {
  const { if: conditions = [], put = [], remove = [], removePrefixes = [] } = transaction
  if (put.length + remove.length + removePrefixes.length > MAX_OPERATIONS)
    throw new CnmError('ERR_CLUSTER', `a transaction has at most ${MAX_OPERATIONS} operations`)
  return { if: conditions, put, remove, removePrefixes }
}

/**
 * Every method throws ERR_CLUSTER_UNAVAILABLE when the store does not answer in time (the transaction may have taken
 * effect nevertheless), ERR_CLUSTER_DENIED for wrong credentials or a missing right, ERR_CLUSTER_FULL when it takes no
 * more.
 */
export interface Backend {
  /** For people: `etcd at http://10.0.0.1:2379`. */
  readonly name: string
  list(prefix: string, options?: { keysOnly?: boolean }): Promise<Listing>
  get(key: string): Promise<KeyValue | undefined>
  /** All of it if the conditions hold (`done`), else nothing. */
  transact(transaction: Transaction): Promise<{ done: boolean; revision: number }>
  /** Keys put with the lease go when it ends: `seconds` after the last renewal. */
  grantLease(seconds: number): Promise<string>
  /** False: it has ended. */
  renewLease(lease: string): Promise<boolean>
  /** Ends it now. One that has ended is fine. */
  revokeLease(lease: string): Promise<void>
  /** Changes of keys that begin with `prefix`, from the revision on. */
  watch(prefix: string, fromRevision: number, listener: WatchListener): Promise<{ close(): void }>
  close(): void
}

/** Numbers of which no two owners have the same: VXLAN network identifiers. Handed to drivers. */
export interface Segments {
  /** The wanted one, or a free one. Throws ERR_SEGMENT_IN_USE, ERR_SEGMENTS_EXHAUSTED, ERR_CLUSTER_UNAVAILABLE. */
  take(owner: string, wanted?: number): Promise<number>
  /** Somebody else's, or one that nobody has, is left alone. */
  giveBack(owner: string, number: number): Promise<void>
}

/** The underlay as this host sees it. */
export interface ClusterHost {
  name: string
  /** Where tunnels to this host end. */
  address: string
}
