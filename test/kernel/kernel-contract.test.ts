import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { LinkSpec } from '../../lib/kernel/kernel'
import { LinuxKernel } from '../../lib/kernel/linux'
import { kernelSuite } from '../../lib/testing/kernel-suite'

/** The kinds of links, and other things, that this kernel cannot make. */
async function missingKinds(kernel: LinuxKernel, directory: string): Promise<string[]> {
  const stack = await kernel.create(join(directory, 'probe'))
  const specs: LinkSpec[] = [
    { kind: 'bridge', name: 'p' },
    { kind: 'dummy', name: 'dummy' },
    { kind: 'vxlan', name: 'vxlan', id: 1, port: 4789 },
    { kind: 'macvlan', name: 'macvlan', parent: 'p', mode: 'bridge' },
    { kind: 'vlan', name: 'vlan', parent: 'p', id: 1 },
    { kind: 'bridge', name: 'q' },
    { kind: 'ipvlan', name: 'ipvlan', parent: 'q', mode: 'l2' },
  ]
  const missing: string[] = []
  for (const link of specs)
    await stack.apply([{ op: 'addLink', link }]).catch((error: { code: string }) => {
      if (error.code !== 'ERR_UNSUPPORTED') throw error
      missing.push(link.kind)
    })
  const state = { source: '192.0.2.1', destination: '192.0.2.2', spi: 999, reqid: 1, key: '00'.repeat(20) }
  await stack.apply([{ op: 'addIpsecState', state }]).catch((error: { code: string }) => {
    if (error.code !== 'ERR_UNSUPPORTED') throw error
    missing.push('esp')
  })
  stack.close()
  await kernel.remove(join(directory, 'probe'))
  return missing
}

describe('LinuxKernel', () => {
  const kernel = new LinuxKernel()
  let directory: string
  let lacks: string[]

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'cnm-contract-'))
    lacks = await missingKinds(kernel, directory)
  })
  afterAll(() => rm(directory, { recursive: true, force: true }))

  kernelSuite(async () => ({ kernel, directory, lacks }))
})
