/** A host that dies at the moment when the record of its service would be written: its virtual IP is claimed by then. */
import { Controller } from 'libcnm'
import { MockKernel } from 'libcnm/testing'
import { EtcdBackend } from '../../../lib/cluster/etcd'

const [endpoint = '', dataDir = ''] = process.argv.slice(2)

async function main(): Promise<void> {
  const backend = new EtcdBackend({ endpoints: [endpoint], timeout: 4_000 })
  const transact = backend.transact.bind(backend)
  backend.transact = async transaction => {
    if (transaction.put?.some(({ key }) => key.includes('/state/service/')))
      process.kill(process.pid, 'SIGKILL')
    return transact(transaction)
  }
  const controller = await Controller.open({
    kernel: new MockKernel(),
    name: 'a',
    hostId: 'a',
    runDir: '/run/libcnm-a',
    dataDir,
    cluster: { backend, host: { name: 'a', address: '192.0.2.10' } },
  })
  await controller.createNetwork({ name: 'web', driver: 'overlay' })
  await controller.createService({ name: 'api', network: 'web' })
}

void main()
