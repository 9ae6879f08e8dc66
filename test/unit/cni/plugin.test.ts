/** A call of the CNI plugin without a kernel: what is refused, with which code, and the forms of a result. */
import { configOf, decode } from '../../../lib/cni/config'
import { commandOf, placeOf } from '../../../lib/cni/environment'
import { CODES, CniError, toCniError } from '../../../lib/cni/errors'
import { callPlugin } from '../../../lib/cni/plugin'
import { appendResult, type CniResult, renderResult, VERSIONS } from '../../../lib/cni/versions'
import { CnmError } from '../../../lib/base/errors'

const BASE = { cniVersion: '1.1.0', name: 'pods', type: 'cnm-cni' }
const call = async (environment: Record<string, string>, input: unknown = BASE) => {
  const text = typeof input === 'string' ? input : JSON.stringify(input)
  const { out, code } = await callPlugin(environment, async () => text)
  return { code, json: out ? (JSON.parse(out) as Record<string, unknown>) : undefined }
}
const codeOf = (act: () => unknown): number => {
  try {
    act()
    return 0
  } catch (error) {
    return toCniError(error).code
  }
}

test('VERSION answers with or without a configuration, in the version that was spoken', async () => {
  for (const [input, cniVersion] of [
    ['', '1.1.0'],
    [{ cniVersion: '0.4.0' }, '0.4.0'],
    [{ cniVersion: '7.0.0' }, '1.1.0'],
  ])
    expect(await call({ CNI_COMMAND: 'VERSION' }, input)).toEqual({
      code: 0,
      json: { cniVersion, supportedVersions: [...VERSIONS] },
    })
})

test.each([
  ['no command', {}, BASE, CODES.invalidEnvironment],
  ['an unknown command', { CNI_COMMAND: 'EVAL' }, BASE, CODES.invalidEnvironment],
  [
    'no container',
    { CNI_COMMAND: 'ADD', CNI_NETNS: '/x', CNI_IFNAME: 'eth0' },
    BASE,
    CODES.invalidEnvironment,
  ],
  ['no JSON', { CNI_COMMAND: 'ADD' }, '{', CODES.decode],
  ['a list', { CNI_COMMAND: 'ADD' }, '[]', CODES.decode],
  [
    'a version of the future',
    { CNI_COMMAND: 'ADD' },
    { ...BASE, cniVersion: '2.0.0' },
    CODES.incompatibleVersion,
  ],
  ['no version', { CNI_COMMAND: 'ADD' }, { name: 'pods', type: 'cnm-cni' }, CODES.incompatibleVersion],
  ['GC before it was', { CNI_COMMAND: 'GC' }, { ...BASE, cniVersion: '1.0.0' }, CODES.incompatibleVersion],
  [
    'CHECK before it was',
    { CNI_COMMAND: 'CHECK' },
    { ...BASE, cniVersion: '0.3.1' },
    CODES.incompatibleVersion,
  ],
  ['an unknown field', { CNI_COMMAND: 'ADD' }, { ...BASE, bridge: 'cni0' }, CODES.unsupportedField],
  [
    'somebody else for addresses',
    { CNI_COMMAND: 'ADD' },
    { ...BASE, ipam: { type: 'host-local' } },
    CODES.unsupportedField,
  ],
  ['a name of a path', { CNI_COMMAND: 'ADD' }, { ...BASE, name: '../etc' }, CODES.invalidConfig],
  ['a folder that is none', { CNI_COMMAND: 'ADD' }, { ...BASE, dataDir: 'state' }, CODES.invalidConfig],
])('refused before anything is opened: %s', async (_, environment, input, expected) => {
  const { code, json } = await call(environment as Record<string, string>, input)
  expect([code, json?.code]).toEqual([1, expected])
  expect(json?.msg).toEqual(expect.any(String))
})

test('a key with a domain is somebody else’s, an argument of the runtime is looser than ours', () => {
  const config = configOf(
    { ...BASE, 'example.com/colour': 'red', runtimeConfig: { portMappings: null, later: 1 }, ipMasq: false },
    'ADD',
  )
  expect(config).toMatchObject({ name: 'pods', driver: 'bridge', ipMasq: false })
  expect(decode('{"a":1}')).toEqual({ a: 1 })
})

test('CNI_ARGS: addresses and MAC; unknown keys only with IgnoreUnknown', () => {
  const env = { CNI_CONTAINERID: 'c', CNI_IFNAME: 'eth0', CNI_NETNS: '/run/netns/c' }
  const args = (text: string) => placeOf({ ...env, CNI_ARGS: text }, 'ADD').args
  expect(args('IP=10.0.0.2,fd00::2;MAC=02:00:00:00:00:01')).toEqual({
    ips: ['10.0.0.2', 'fd00::2'],
    mac: '02:00:00:00:00:01',
  })
  expect(args('IgnoreUnknown=true;K8S_POD_NAME=web')).toEqual({ ips: [] })
  expect(codeOf(() => args('K8S_POD_NAME=web'))).toBe(CODES.invalidEnvironment)
  expect(codeOf(() => args('nonsense'))).toBe(CODES.invalidEnvironment)
  for (const ifname of ['', '.', '..', 'a/b', 'a b', 'a:b', 'a'.repeat(16)])
    expect(codeOf(() => placeOf({ ...env, CNI_IFNAME: ifname }, 'ADD'))).toBe(CODES.invalidEnvironment)
  for (const id of ['', '../x', '-x', 'x'.repeat(256)])
    expect(codeOf(() => placeOf({ ...env, CNI_CONTAINERID: id }, 'ADD'))).toBe(CODES.invalidEnvironment)
  expect(codeOf(() => placeOf({ ...env, CNI_NETNS: 'ns' }, 'ADD'))).toBe(CODES.invalidEnvironment)
  expect(placeOf({ CNI_CONTAINERID: 'c', CNI_IFNAME: 'eth0' }, 'DEL').netns).toBeUndefined()
  expect(commandOf({ CNI_COMMAND: 'GC' })).toBe('GC')
})

test('a result in each version, and after another plugin’s', () => {
  const own: CniResult = {
    interfaces: [{ name: 'eth0', mac: '02:00:00:00:00:01', mtu: 1500, sandbox: '/ns' }],
    ips: [
      { address: '10.0.0.2/24', interface: 0 },
      { address: 'fd00::2/64', interface: 0 },
    ],
    routes: [{ dst: '0.0.0.0/0', gw: '10.0.0.1' }],
    dns: {},
  }
  expect(renderResult(own, '0.4.0')).toMatchObject({
    interfaces: [{ name: 'eth0', mac: '02:00:00:00:00:01', sandbox: '/ns' }],
    ips: [{ version: '4' }, { version: '6' }],
  })
  expect(renderResult(own, '1.0.0')).not.toHaveProperty('interfaces.0.mtu')
  expect(renderResult(own, '1.1.0')).toMatchObject({ cniVersion: '1.1.0', interfaces: [{ mtu: 1500 }] })
  const both = appendResult({ ...own, dns: { domain: 'a' } }, own)
  expect(both.ips.map(ip => ip.interface)).toEqual([0, 0, 1, 1])
  expect(both.interfaces).toHaveLength(2)
  expect(both.dns).toEqual({ domain: 'a' })
})

test('errors of the library become codes, and say what to do next', () => {
  const told = toCniError(new CnmError('ERR_STORE_LOCKED', 'held by process 7'))
  expect(told).toMatchObject({ code: CODES.tryAgain, message: 'held by process 7' })
  expect(told.details).toMatch(/^ERR_STORE_LOCKED: \S/)
  expect(toCniError(new CniError(3, 'gone')).code).toBe(3)
  expect(toCniError(Object.assign(new Error('no'), { code: 'ENOENT' })).code).toBe(CODES.io)
  expect(toCniError(new Error('?')).code).toBe(CODES.internal)
})
