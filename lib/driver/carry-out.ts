/** Acting on what drivers answer. */
import { isCnmError } from '../base/errors'
import type { Undo } from '../base/undo'
import type { Change, Stack } from '../kernel/kernel'
import type { Plan } from './contract'

/** Acts on a driver's plan; its inverse is pushed first, so that a part done is undone too. */
export async function carryOut(host: Stack, plan: Plan | undefined, what: string, undo: Undo): Promise<void> {
  if (!plan) return
  const { changes, sysctls, undo: inverse } = plan
  if (inverse?.length) undo.push(what, () => applyLeniently(host, inverse))
  if (changes?.length) await host.apply(changes)
  if (sysctls) host.setSysctls(sysctls)
}

/** What the kernel answers when the thing to be removed is not there. */
const ABSENT = new Set(['ENODEV', 'ENOENT', 'ESRCH', 'EADDRNOTAVAIL', 'ENXIO'])

export const isAbsent = (error: unknown): boolean =>
  isCnmError(error, 'ERR_LINK_NOT_FOUND', 'ERR_NETNS_NOT_FOUND') ||
  (isCnmError(error) && ABSENT.has(String(error.details.errno)))

/** Removal that does not mind what is gone already. Goes on after a failure; throws the first real one at the end. */
export async function applyLeniently(stack: Stack, changes: Change[]): Promise<void> {
  let failure: unknown
  for (const change of changes) {
    try {
      await stack.apply([change])
    } catch (error) {
      if (!isAbsent(error)) failure ??= error
    }
  }
  if (failure) throw failure
}

/** Puts things back: what is there already, or can no longer be, is no failure. Stops at the first real one. */
export async function applyTolerantly(stack: Stack, changes: Change[]): Promise<void> {
  for (const change of changes) {
    try {
      await stack.apply([change])
    } catch (error) {
      if (!isAbsent(error) && !(isCnmError(error) && error.details.errno === 'EEXIST')) throw error
    }
  }
}
