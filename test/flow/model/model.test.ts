/**
 * Random sequences of public operations, several at a time, against a model a page long. The model says what each is to
 * answer; afterwards both say the same, and the kernel is as the library says. Between them the process ends, and the next
 * one takes over.
 */
import fc from 'fast-check'
import { answer, finish, Model, Real, same } from './model'
import { type Operation, restart } from './operations'
import { operation } from './random'

/** A nightly run sets MODEL_RUNS=1000 and another seed. */
const SETTINGS = {
  numRuns: Number(process.env.MODEL_RUNS ?? 40),
  seed: Number(process.env.MODEL_SEED ?? 20261124),
  endOnFailure: true,
}

const TIMEOUT = 30_000 + SETTINGS.numRuns * 1000

class Act implements fc.AsyncCommand<Model, Real> {
  constructor(readonly operation: Operation) {}
  check = () => true
  async run(model: Model, real: Real): Promise<void> {
    const wanted = this.operation.expect(model)
    expect(await answer(this.operation.run(real))).toBe(wanted)
    same(model, real)
  }
  toString = () => this.operation.name
}

test(
  'one after the other: every answer is the model’s',
  () =>
    fc.assert(
      fc.asyncProperty(
        fc.commands(
          [
            fc
              .oneof({ weight: 20, arbitrary: operation }, { weight: 1, arbitrary: fc.constant(restart) })
              .map(each => new Act(each)),
          ],
          { maxCommands: 80, size: '+1' },
        ),
        async commands => {
          const real = await Real.open()
          await fc.asyncModelRun(() => ({ model: new Model(), real }), commands)
          await finish(real)
        },
      ),
      SETTINGS,
    ),
  TIMEOUT,
)

test(
  'several at once, with every order in which the kernel may answer: whole or refused, and consistent',
  () =>
    fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.record({ round: fc.array(operation, { minLength: 1, maxLength: 8 }), ends: fc.boolean() }),
          { maxLength: 8 },
        ),
        fc.scheduler(),
        async (rounds, scheduler) => {
          const real = await Real.open()
          for (const { round, ends } of rounds) {
            const work = round.map(async each => {
              await scheduler.schedule(Promise.resolve(), each.name)
              return answer(each.run(real))
            })
            await scheduler.waitFor(Promise.all(work))
            if (ends) await real.restart()
            for (const sandbox of real.controller.sandboxes())
              expect(sandbox.endpoints().every(endpoint => endpoint.sandbox === sandbox)).toBe(true)
          }
          await finish(real)
        },
      ),
      SETTINGS,
    ),
  TIMEOUT,
)
