import { MockKernel } from '../../lib/testing'
import { kernelSuite } from '../../lib/testing/kernel-suite'

describe('MockKernel', () => {
  kernelSuite(async () => ({ kernel: new MockKernel(), directory: '/run/netns' }))
})
