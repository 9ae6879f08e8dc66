/** What the benchmark and the processes that hold its hosts say to each other. */
export type Order =
  | { do: 'open'; endpoint: string; hosts: number[] }
  /** The networks, by host 1. */
  | { do: 'create'; networks: number }
  /** So many endpoints on each host. */
  | { do: 'fill'; each: number; networks: number }
  /** Until each host's kernel has so many endpoints of others. */
  | { do: 'know'; endpoints: number; besides: number }
  /** One more endpoint, on one host. */
  | { do: 'join'; host: number; name: string }
  | { do: 'measure' }
  /** Until all hosts are connected. */
  | { do: 'connected' }
  | { do: 'close' }

export interface Answer {
  /** Milliseconds that the order took. */
  took: number
  /** measure: bytes of heap for each host. */
  heap?: number
  /** measure: milliseconds of processor time since the last measure, of all hosts. */
  cpu?: number
}
