import { setTimeout as pause } from 'node:timers/promises'
import { Pace } from '../../../lib/kernel/pace'

let clock = 0
const newPace = () => new Pace(() => clock)
const take = (milliseconds: number): string => {
  clock += milliseconds
  return 'here'
}

const here = () => 'here'
const away = async () => 'away'

test('what is short is done here, but not while a worker is under way', async () => {
  const pace = newPace()
  expect(await pace.make(here, away)).toBe('here')
  const long = pace.away(() => pause(30, 'long'))
  expect(await pace.make(here, away)).toBe('away')
  expect(await long).toBe('long')
  expect(await pace.make(here, away)).toBe('here')
})

test('what took long here sends workers until one is back quickly', async () => {
  const pace = newPace()
  await pace.make(() => take(10), away)
  expect(await pace.make(here, async () => `slow ${take(10)}`)).toBe('slow here')
  expect(await pace.make(here, away)).toBe('away')
  expect(await pace.make(here, away)).toBe('here')
})

test('many at once leave the event loop its turns, and go in order', async () => {
  const pace = newPace()
  let turns = 0
  let running = true
  const count = () => {
    turns++
    if (running) setImmediate(count)
  }
  setImmediate(count)
  const order: number[] = []
  await Promise.all(
    Array.from({ length: 20 }, (_, i) =>
      pace.make(
        () => {
          order.push(i)
          return take(3.2)
        },
        () => Promise.reject(new Error('away')),
      ),
    ),
  )
  running = false
  expect(turns).toBeGreaterThan(15)
  expect(order).toEqual(Array.from({ length: 20 }, (_, i) => i))
})

test('what fails is thrown, and the pace goes on', async () => {
  const pace = newPace()
  const fail = (): string => {
    throw new Error('no')
  }
  await expect(pace.make(fail, away)).rejects.toThrow('no')
  await expect(pace.away(async () => fail())).rejects.toThrow('no')
  expect(await pace.make(here, away)).toBe('here')
})
