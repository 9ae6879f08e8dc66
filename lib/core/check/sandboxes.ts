/** What is inside a sandbox, its files and its resolver. */
import { existsSync } from 'node:fs'
import { familyOf } from '../../base/cidr'
import { isCnmError } from '../../base/errors'
import type { Sandbox } from '../../sandbox'
import type { Context } from '../context'
import type { Difference } from '../difference'
import { sysctlsFor } from '../inside'
import { checkBandwidth } from './bandwidth'
import { checkEndpoint } from './endpoints'
import { type Facts, factsOf } from './facts'
import { checkSysctls } from './sysctls'

export async function checkSandbox(context: Context, sandbox: Sandbox, host: Facts): Promise<Difference[]> {
  const { stack } = sandbox
  if (!stack || sandbox.mode === 'host' || sandbox.mode.startsWith('container:')) return []
  const about = { sandboxId: sandbox.id }
  if (!(await isBound(context, sandbox)))
    return [
      {
        ...about,
        kind: 'netns',
        problem: 'missing',
        message: `the namespace of sandbox ${sandbox.containerId} is no longer at ${sandbox.key}`,
        fix: { by: 'delete-sandbox' },
      },
    ]
  const inside = await factsOf(stack)
  const found: Difference[] = []
  for (const endpoint of sandbox.endpoints()) {
    found.push(...checkEndpoint(context, endpoint, sandbox, inside, host))
    const { attachment, interfaceName = '', options } = endpoint.record.join ?? {}
    if (!attachment?.interface || !options || !inside.links.has(interfaceName)) continue
    const ours = { ...about, endpointId: endpoint.id, networkId: endpoint.network.id }
    found.push(
      ...checkSysctls(stack, 'sandbox', sysctlsFor(attachment, options, interfaceName), ours),
      ...checkSysctls(context.host, 'host', attachment.plan?.sysctls ?? {}, ours),
      ...(await checkBandwidth(context, endpoint, sandbox, inside, host)),
    )
  }
  for (const route of sandbox.wantedDefaults()) {
    const family = familyOf(route.destination)
    const link = inside.links.get(route.link as string)
    const present = inside.routes.some(
      candidate =>
        candidate.family === family &&
        candidate.destination === route.destination &&
        candidate.table === 254 &&
        candidate.link === link?.index &&
        candidate.gateway === route.gateway,
    )
    if (!present && link)
      found.push({
        ...about,
        kind: 'route',
        problem: 'missing',
        message: `sandbox ${sandbox.containerId} lacks its default route ${route.gateway ? `via ${route.gateway} ` : ''}dev ${String(route.link)}`,
        fix: { by: 'changes', where: 'sandbox', changes: [{ op: 'replaceRoute', route }] },
      })
  }
  const missing = Object.values(sandbox.files ?? {}).filter(path => !existsSync(path))
  if (missing.length)
    found.push({
      ...about,
      kind: 'file',
      problem: 'missing',
      message: `files of sandbox ${sandbox.containerId} are gone: ${missing.join(', ')}`,
      fix: { by: 'files' },
    })
  if (!sandbox.servicesIntact())
    found.push({
      ...about,
      kind: 'services',
      problem: 'wrong',
      message: `the rules for services in sandbox ${sandbox.containerId} are not as they should be`,
      fix: { by: 'services' },
    })
  if (sandbox.resolver && !(await sandbox.resolver.answers()))
    found.push({
      ...about,
      kind: 'resolver',
      problem: 'missing',
      message: `nobody answers on 127.0.0.11 in sandbox ${sandbox.containerId}`,
      fix: { by: 'resolver' },
    })
  return found
}

async function isBound({ kernel }: Context, sandbox: Sandbox): Promise<boolean> {
  try {
    const again = await kernel.open(sandbox.key)
    const same = again.inode === sandbox.stack?.inode
    again.close()
    return same
  } catch (error) {
    if (isCnmError(error, 'ERR_NETNS_NOT_FOUND')) return false
    throw error
  }
}
