/** The kernel's contract on a kernel that has every kind of link. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { LinuxKernel } from '../../lib/kernel/linux'
import { kernelSuite } from '../../lib/testing/kernel-suite'

describe('LinuxKernel', () => {
  const kernel = new LinuxKernel()
  let directory: string

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'libcnm-vm-kernel-'))
  })
  afterAll(() => rm(directory, { recursive: true, force: true }))

  kernelSuite(async () => ({ kernel, directory, lacks: [] }))
})
