/** What the child of the kill tests is told on its command line, and says in lines of JSON. */
export interface Orders {
  /** Options of the controller. */
  name: string
  host: string
  dataDir: string
  runDir: string
  seed: number
}

export type Line =
  /** Everything is loaded; it waits for a line on its standard input. */
  | { at: 'loaded' }
  /** Controller.open begins. */
  | { at: 'opening' }
  | { at: 'open' }
  /** Nothing is under way; this is all there is. */
  | { at: 'quiet'; state: WorldState }
  /** An operation begins that may change these objects and what hangs on them. */
  | { at: 'begin'; operation: string; touches: string[] }
  | { at: 'end'; operation: string; code?: string }
  /** A failure that no sequence of operations may lead to. */
  | { at: 'unexpected'; operation: string; error: unknown }

/** Networks by name, sandboxes by container id, endpoints as `NETWORK/NAME`. */
export interface WorldState {
  networks: Record<string, { id: string }>
  sandboxes: Record<string, { id: string }>
  endpoints: Record<string, { id: string; network: string; ports: number[]; sandbox?: string }>
}
