/** Looked at for a second time by one survey of the host, while nobody is at work on any of them. */
const SMALLEST = 64
/** As many surveys at most, each of which takes as long as there are links: so all of them together stay linear. */
const MOST = 8

export function groups<T>(all: readonly T[]): T[][] {
  const size = Math.max(SMALLEST, Math.ceil(all.length / MOST))
  return Array.from({ length: Math.ceil(all.length / size) }, (_, n) => all.slice(n * size, (n + 1) * size))
}
