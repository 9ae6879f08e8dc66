/** A slip of the pen, and what was meant. Pure, and light: the command line loads it at every start. */

/** The known name within two edits of the given one. */
export function nearest(name: string, known: Iterable<string>): string | undefined {
  if (name.length > 64) return undefined // no slip of the pen, and long to compare
  let best: string | undefined
  let least = Math.min(3, Math.ceil(name.length / 2) + 1)
  for (const candidate of known) {
    const d = distance(name.toLowerCase(), candidate.toLowerCase())
    if (d < least) {
      least = d
      best = candidate
    }
  }
  return best
}

function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++)
      next[j] = Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1))
    row = next
  }
  return row[b.length]!
}
