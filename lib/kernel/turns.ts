/** Who owns a socket, which carries one exchange at a time. `last` is the end of its queue. */
export interface Line {
  last: Promise<void> | undefined
}

/**
 * Queues up for all lines at once, so that two who need the same two never wait for each other. `ready` is undefined when
 * nobody is before us: then nothing need be awaited. Call `done` exactly once.
 */
export function takeTurn(lines: Iterable<Line>): { ready: Promise<unknown> | undefined; done(): void } {
  let open = (): void => {}
  const mine = new Promise<void>(resolve => {
    open = resolve
  })
  const all = [...lines]
  const before = all.flatMap(line => line.last ?? [])
  for (const line of all) line.last = mine
  return {
    ready: before.length === 0 ? undefined : Promise.all(before),
    done: () => {
      for (const line of all) if (line.last === mine) line.last = undefined
      open()
    },
  }
}
