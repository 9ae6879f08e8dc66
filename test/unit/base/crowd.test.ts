import { setImmediate as turn } from 'node:timers/promises'
import { crowd } from '../../../lib/base/crowd'

test('so many at a time, each once, in order', async () => {
  const begun: number[] = []
  let [present, most] = [0, 0]
  await crowd([...Array(20).keys()], 3, async item => {
    begun.push(item)
    most = Math.max(most, ++present)
    await turn()
    present--
  })
  expect(begun).toEqual([...Array(20).keys()])
  expect(most).toBe(3)
})

test('the first failure is told, and nothing new is begun', async () => {
  const begun: number[] = []
  const running = crowd([0, 1, 2, 3, 4, 5], 2, async item => {
    begun.push(item)
    await turn()
    if (item === 1) throw new Error('one')
  })
  await expect(running).rejects.toThrow('one')
  for (let i = 0; i < 5; i++) await turn()
  expect(begun.length).toBeLessThan(6)
})

test('nothing to do is done at once', async () => {
  await crowd([], 4, () => Promise.reject(new Error('never')))
})
