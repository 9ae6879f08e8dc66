/**
 * Works on all items, `width` of them at a time, in order. Rejects with the first failure; what is under way then goes on,
 * nothing new is begun.
 */
export async function crowd<T>(
  items: Iterable<T>,
  width: number,
  body: (item: T) => Promise<unknown>,
): Promise<void> {
  const rest = items[Symbol.iterator]()
  let failed = false
  const worker = async () => {
    for (let next = rest.next(); !next.done && !failed; next = rest.next()) await body(next.value)
  }
  await Promise.all(
    Array.from({ length: width }, () =>
      worker().catch((error: unknown) => {
        failed = true
        throw error
      }),
    ),
  )
}
