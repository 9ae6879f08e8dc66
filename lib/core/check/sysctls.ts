import type { Stack } from '../../kernel/kernel'
import type { Difference } from '../difference'

/** Settings that the kernel has not got (an absent interface, a kernel without IPv6) are no difference. */
export function checkSysctls(
  stack: Stack,
  where: 'host' | 'sandbox',
  wanted: Record<string, string>,
  about: Pick<Difference, 'networkId' | 'endpointId' | 'sandboxId'>,
): Difference[] {
  return Object.entries(wanted).flatMap(([key, value]): Difference[] => {
    const present = words(stack.sysctl(key))
    if (present === undefined || present === words(value)) return []
    return [
      {
        ...about,
        kind: 'sysctl',
        problem: 'wrong',
        message: `${key} of the ${where} is ${present}, not ${value}`,
        fix: { by: 'sysctls', where, sysctls: { [key]: value } },
      },
    ]
  })
}

/** Several values are told with tabs between them. */
const words = (text: string | undefined): string | undefined => text?.trim().replace(/\s+/g, ' ')
