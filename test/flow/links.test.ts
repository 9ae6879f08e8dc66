/** Docker's --link on the default bridge: lines in /etc/hosts, and variables as data. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Controller } from 'libcnm'
import { MockKernel } from 'libcnm/testing'

test('a link names its target in hosts, follows its address, and is told as variables', async () => {
  const runDir = mkdtempSync(join(tmpdir(), 'libcnm-links-'))
  const controller = await Controller.open({ kernel: new MockKernel(), runDir, predefined: true })
  try {
    const bridge = controller.network('bridge')
    const tomcat = await controller.createSandbox({ containerId: 'tomcat02' })
    const target = await bridge.createEndpoint({ name: 'tomcat02', exposed: ['8080/tcp'] })
    await target.join(tomcat)
    const linker = await controller.createSandbox({ containerId: 'tomcat03' })
    const endpoint = await bridge.createEndpoint({ name: 'tomcat03', links: { web: 'tomcat02' } })
    await endpoint.join(linker)
    const hosts = () => readFileSync(linker.files?.hosts as string, 'utf8')
    expect(hosts()).toMatch(/^172\.17\.0\.2\s+web tomcat02$/m)
    expect(linker.linkEnvironment()).toEqual(
      expect.arrayContaining([
        'WEB_PORT_8080_TCP_ADDR=172.17.0.2',
        'WEB_PORT_8080_TCP_PORT=8080',
        'WEB_NAME=/tomcat03/web',
      ]),
    )
    await target.delete({ force: true })
    const again = await bridge.createEndpoint({ name: 'tomcat02', ipv4: '172.17.0.9', exposed: ['8080/tcp'] })
    await again.join(tomcat)
    expect(hosts()).toMatch(/^172\.17\.0\.9\s+web tomcat02$/m)
  } finally {
    await controller.close()
    rmSync(runDir, { recursive: true, force: true })
  }
})
