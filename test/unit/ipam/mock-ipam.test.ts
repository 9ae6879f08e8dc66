import { MockIpamDriver } from '../../../lib/testing/mock-ipam'

const POOL = { space: 'LocalDefault', family: 4 as const }
const ANSWER = { id: 'p', pool: '10.1.0.0/24', data: {} }

test('scripted answers first, oldest first; then the driver behind', async () => {
  const ipam = new MockIpamDriver({ name: 'm', capabilities: { requiresMac: true } })
  expect([ipam.name, ipam.capabilities]).toEqual(['m', { requiresMac: true, requiresReplay: true }])
  ipam.intercept('requestPool').reply(ANSWER)
  ipam.intercept('requestPool').replyWithError(new Error('second'))
  expect(await ipam.requestPool(POOL)).toBe(ANSWER)
  await expect(ipam.requestPool(POOL)).rejects.toThrow('second')
  const own = await ipam.requestPool(POOL)
  expect(own.pool).toBe('172.17.0.0/16')
  expect(ipam.calls).toEqual([
    { method: 'requestPool', args: [POOL], scripted: true, answer: ANSWER },
    { method: 'requestPool', args: [POOL], scripted: true, error: new Error('second') },
    { method: 'requestPool', args: [POOL], scripted: false, answer: own },
  ])
  expect((await ipam.status(own.id)).inUse).toBe(2n)
})

test('match, times, persist, answers made from the arguments', async () => {
  const ipam = new MockIpamDriver().disallowUnexpected()
  ipam
    .intercept('requestAddress', (_, { owner }) => owner === 'a')
    .reply((id, { owner }) => ({ address: `10.0.0.${id.length}/24`, mac: owner, data: {} }))
    .times(2)
  ipam.intercept('releasePool').reply(undefined).persist()
  const ask = (owner: string) => ipam.requestAddress('pool', { owner, purpose: 'endpoint' })
  await expect(ask('b')).rejects.toThrow(
    /did not expect requestAddress.*"owner":"b".*waits for requestAddress, releasePool/,
  )
  expect(await ask('a')).toEqual({ address: '10.0.0.4/24', mac: 'a', data: {} })
  expect(ipam.pending()).toEqual(['requestAddress', 'releasePool'])
  expect(() => ipam.assertNoPending()).toThrow(/2 scripted answers.*requestAddress, releasePool/)
  await ask('a')
  await ipam.releasePool('x')
  await ipam.releasePool('x')
  ipam.assertNoPending()
  await expect(ask('a')).rejects.toThrow(/nothing more is scripted/)
  expect(ipam.callsOf('releasePool')).toHaveLength(2)
  ipam.allowUnexpected()
  await expect(ask('a')).rejects.toMatchObject({ code: 'ERR_POOL_INVALID' })
})

test('after holds the answer back', async () => {
  const ipam = new MockIpamDriver()
  let open = () => {}
  const gate = new Promise<void>(resolve => {
    open = resolve
  })
  ipam.intercept('requestPool').reply(ANSWER).after(gate)
  const first = ipam.requestPool(POOL)
  const second = await ipam.requestPool(POOL)
  expect(second.pool).toBe('172.17.0.0/16')
  expect(ipam.calls[0]).not.toHaveProperty('answer')
  open()
  expect(await first).toBe(ANSWER)
})

test('a script without an answer says so; so does a driver without status', async () => {
  const ipam = new MockIpamDriver()
  ipam.intercept('releasePool')
  await expect(ipam.releasePool('x')).rejects.toThrow(/has no reply/)
  const { status: _, ...bare } = { ...new MockIpamDriver(), status: undefined }
  const without = new MockIpamDriver({ backing: { ...bare, ...methods(new MockIpamDriver()) } })
  await expect(without.status('x')).rejects.toMatchObject({ code: 'ERR_UNSUPPORTED' })
})

function methods(driver: MockIpamDriver) {
  return {
    defaultAddressSpaces: () => driver.defaultAddressSpaces(),
    requestPool: driver.requestPool.bind(driver),
    releasePool: driver.releasePool.bind(driver),
    requestAddress: driver.requestAddress.bind(driver),
    releaseAddress: driver.releaseAddress.bind(driver),
  }
}
