import { constants } from 'node:os'
import { CnmError } from '../base/errors'
import type { Binding, ExchangeResult } from './binding'
import { changeError, systemError } from './errors'
import type { Change, Stack, Step } from './kernel'
import { Names } from './names'
import { completions, encodeChange, familyOfChange, isDone, isShort } from './netlink/changes'
import { decodeLinkIndex, encodeCompletion, encodeGetLink } from './netlink/link'
import { Messages, Writer } from './netlink/message'
import { pace } from './pace'
import type { LinuxStack } from './stack'
import { takeTurn } from './turns'

/** Some messages for one socket, and which change each belongs to. */
interface Outgoing {
  fd: number
  messages: Uint8Array
  count: number
  step: number
  /** By message: the change's place in its step. */
  changes: number[]
}

const { ENODEV } = constants.errno

/** One serves all: what is written is taken out before anybody else can write. */
const writer = new Writer()

/** Carries out steps in order: see Kernel.transact. Waits until the sockets are free. */
export async function transact(binding: Binding, steps: readonly Step[]): Promise<void> {
  const stacks = new Set<LinuxStack>()
  for (const { stack } of steps) stacks.add(ours(stack))
  const transaction = new Transaction(binding, steps)
  for (const stack of stacks) transaction.hold(stack)
  const turn = takeTurn(stacks)
  try {
    if (turn.ready) await turn.ready
    await transaction.run()
  } finally {
    turn.done()
    transaction.letGo()
  }
}

function ours(stack: Stack): LinuxStack {
  if (typeof (stack as LinuxStack).hold !== 'function')
    throw new CnmError('ERR_INTERNAL', 'a stack of another kernel was given to the Linux kernel', {
      path: stack.path,
    })
  return stack as LinuxStack
}

class Transaction {
  private readonly held = new Set<LinuxStack>()
  private readonly names = new Names(
    stack => this.hold(ours(stack)).descriptor,
    (stack, name) => ours(stack).remembered(name),
  )
  /** A change of the step that could not even be sent, because the kernel knows no link of the name. */
  private unsendable: { step: number; change: number; name: string } | undefined
  private readonly short: boolean

  constructor(
    private readonly binding: Binding,
    private readonly steps: readonly Step[],
  ) {
    this.short = steps.every(({ changes }) => changes.every(isShort))
  }

  /** Keeps the descriptors open until we are done. */
  hold(stack: LinuxStack): LinuxStack {
    if (!this.held.has(stack)) {
      stack.hold()
      this.held.add(stack)
    }
    return stack
  }

  letGo(): void {
    for (const stack of this.held) stack.letGo()
  }

  async run(): Promise<void> {
    let next = 0
    while (next < this.steps.length) {
      let batch = this.encode(next)
      while (this.names.incomplete) {
        if (this.names.missing.size > 0) await this.lookUp()
        batch = this.encode(next)
      }
      next = batch.next
      await this.send(batch.outgoing)
      this.names.forgetAbsent()
    }
  }

  /** The messages from step `first` on, up to a step which names a link that perhaps the steps before it will make. */
  private encode(first: number): { outgoing: Outgoing[]; next: number } {
    const outgoing: Outgoing[] = []
    this.names.restart()
    this.unsendable = undefined
    for (let step = first; step < this.steps.length; step++) {
      const { stack, changes } = this.steps[step] as Step
      const wanting = this.encodeStep(step, stack, changes, step === first, outgoing)
      if (wanting) return { outgoing, next: step === first ? step + 1 : step }
    }
    return { outgoing, next: this.steps.length }
  }

  /** Returns true when a link was missing: then this step is the last, or (unless it is the first) not sent at all. */
  private encodeStep(
    step: number,
    stack: Stack,
    changes: readonly Change[],
    first: boolean,
    outgoing: Outgoing[],
  ): boolean {
    const { names } = this
    let owners: number[] = []
    let family: 'route' | 'xfrm' = 'route'
    const post = () => {
      if (writer.count === 0) return
      const linux = ours(stack)
      const socket = family === 'route' ? linux.routeSocket : linux.xfrmSocket
      outgoing.push(this.outgoing(socket, step, owners))
      owners = []
    }
    writer.clear()
    names.enter(stack)
    for (const [i, change] of changes.entries()) {
      if (familyOfChange(change) !== family) {
        post()
        family = familyOfChange(change)
      }
      const { length, count } = writer
      names.absent = undefined
      encodeChange(writer, change, names)
      if (names.absent !== undefined) {
        if (!first) return true
        writer.rewind(length, count)
        this.unsendable ??= { step, change: i, name: names.absent }
      }
      while (owners.length < writer.count) owners.push(i)
    }
    post()
    for (const [i, change] of changes.entries()) {
      if (change.op !== 'addLink') continue
      for (const { netns, completion } of completions(change.link)) {
        if (!netns) continue
        writer.clear()
        encodeCompletion(writer, completion)
        outgoing.push(this.outgoing(this.hold(ours(netns)).routeSocket, step, [i]))
      }
    }
    return this.unsendable !== undefined
  }

  private outgoing(fd: number, step: number, changes: number[]): Outgoing {
    const { count } = writer
    return { fd, messages: writer.take(), count, step, changes }
  }

  /** Asks the kernel for the indexes of names. A name that there is none of ends the journey; the rest is asked anew. */
  private async lookUp(): Promise<void> {
    const bySocket = new Map<LinuxStack, { stack: Stack; name: string }[]>()
    for (const missing of this.names.missing.values()) {
      const stack = ours(missing.stack)
      const list = bySocket.get(stack)
      if (list) list.push(missing)
      else bySocket.set(stack, [missing])
    }
    const questions = [...bySocket].map(([stack, names]) => {
      writer.clear()
      for (const { name } of names) encodeGetLink(writer, name)
      const { count } = writer
      return { fd: stack.routeSocket, messages: writer.take(), count, names }
    })
    const answers = await this.exchange(questions)
    for (const [i, answer] of answers.entries()) {
      const messages = new Messages(answer.data)
      for (const [j, { stack, name }] of (questions[i]?.names ?? []).entries()) {
        const error = answer.errors[j]
        if (error !== 0 && error !== ENODEV)
          throw systemError({ errno: error }, `look up link ${name}`, { name })
        const index = error === 0 && messages.next() ? (decodeLinkIndex(messages) ?? 0) : 0
        this.names.answer(stack, name, index)
        ours(stack).remember(name, index)
      }
    }
  }

  private async send(outgoing: Outgoing[]): Promise<void> {
    for (let sent = 0; sent < outgoing.length; ) {
      const results = await this.exchange(sent === 0 ? outgoing : outgoing.slice(sent))
      for (const [i, result] of results.entries()) this.check(outgoing[sent + i] as Outgoing, result)
      sent += results.length // fewer, when an error that means "done already" ended the journey
    }
    if (this.unsendable) this.refuse(this.unsendable)
  }

  private check({ step, changes }: Outgoing, result: ExchangeResult): void {
    for (const [i, number] of result.errors.entries()) {
      if (number === 0) continue
      const at = { step, change: changes[i] ?? 0 }
      const change = this.change(at)
      if (isDone(change, number)) continue
      const { unsendable } = this
      if (unsendable && unsendable.step === step && unsendable.change < at.change) this.refuse(unsendable)
      throw changeError(change, number, result.texts[i], at)
    }
  }

  private refuse({ step, change, name }: { step: number; change: number; name: string }): never {
    const at = { step, change }
    throw changeError(this.change(at), ENODEV, `no link ${name}`, at)
  }

  private change({ step, change }: { step: number; change: number }): Change {
    return this.steps[step]?.changes[change] as Change
  }

  private async exchange(
    steps: { fd: number; messages: Uint8Array; count: number }[],
  ): Promise<ExchangeResult[]> {
    const away = () => this.binding.exchange(steps)
    try {
      return await (this.short ? pace.make(() => exchangeHere(this.binding, steps), away) : pace.away(away))
    } catch (error) {
      throw systemError(error, 'speak to the kernel (netlink)')
    }
  }
}

/** {@link Binding.exchange} on the calling thread. */
function exchangeHere(
  binding: Binding,
  steps: { fd: number; messages: Uint8Array; count: number }[],
): ExchangeResult[] {
  const results: ExchangeResult[] = []
  for (const step of steps) {
    const result = binding.exchangeSync(step)
    results.push(result)
    if (result.errors.some(error => error !== 0)) break
  }
  return results
}
