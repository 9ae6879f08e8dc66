/** The chapter for authors of drivers is run: its program as it stands, with the example driver, on the model of Linux. */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { transformSync } from '@swc/core'
import * as libcnm from 'libcnm'
import { MockKernel } from 'libcnm/testing'
import { routed } from '../../../examples/custom-driver/driver'

const readme = readFileSync(join(__dirname, '../../../README.md'), 'utf8')
const chapter = /## A driver of your own\n(.*?)\n## /s.exec(readme)?.[1] ?? ''
const [, program = ''] = /^```typescript\n(.*?)^```/ms.exec(chapter) ?? []

test('the suite is asked for the driver; a network of it is made; the socket is where Docker looks', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'libcnm-author-'))
  const ends: (() => Promise<unknown>)[] = []
  const suites: [string, libcnm.Driver][] = []
  class Controller {
    static async open(options: libcnm.ControllerInput = {}) {
      const runDir = join(directory, 'run')
      const controller = await libcnm.Controller.open({ kernel: new MockKernel(), runDir, ...options })
      ends.unshift(() => controller.close())
      return controller
    }
  }
  const serveDriver: typeof libcnm.serveDriver = async (driver, options) => {
    expect(options.socket).toBe('/run/docker/plugins/routed.sock')
    const served = await libcnm.serveDriver(driver, { ...options, socket: join(directory, 'routed.sock') })
    ends.unshift(() => served.close())
    return served
  }
  const driverSuite = (name: string, { makeDriver }: { makeDriver(): libcnm.Driver }) =>
    suites.push([name, makeDriver()])
  const body = program.replace(/^import .*$/gm, '')
  const source = `module.exports = async ({ Controller, serveDriver, driverSuite, routed }) => { ${body}; return controller }`
  const { code } = transformSync(source, {
    jsc: { target: 'es2022', parser: { syntax: 'typescript' } },
    module: { type: 'commonjs' },
  })
  const module = { exports: undefined as unknown }
  new Function('module', code)(module)
  try {
    const run = module.exports as (given: object) => Promise<libcnm.Controller>
    const controller = await run({ Controller, serveDriver, driverSuite, routed })
    expect(controller.network('mine').driver).toBe('routed')
    expect(suites).toMatchObject([['routed', { name: 'routed' }]])
    expect(existsSync(join(directory, 'routed.sock'))).toBe(true)
  } finally {
    for (const end of ends) await end()
    rmSync(directory, { recursive: true, force: true })
  }
})
