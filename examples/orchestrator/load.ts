/** Clients outside that ask all the time, each question on a connection of its own, and count what they are told. */
import { Socket } from 'node:net'
import type { Stack } from 'libcnm'

/** Milliseconds after which a question counts as failed. */
const PATIENCE = 5_000

export class Load {
  readonly #from: Stack
  readonly #targets: () => { address: string; port: number }[]
  readonly #clients: Promise<void>[] = []
  #stopped = false
  /** Version → answers. */
  answers: Record<string, number> = {}
  failures: string[] = []

  constructor(from: Stack, targets: () => { address: string; port: number }[], clients = 4) {
    this.#from = from
    this.#targets = targets
    for (let n = 0; n < clients; n++) this.#clients.push(this.#run(n))
  }

  async #run(first: number): Promise<void> {
    for (let n = first; !this.#stopped; n++) {
      const targets = this.#targets()
      const { address, port } = targets[n % targets.length] as { address: string; port: number }
      const answer = await question(this.#from, address, port)
      const [version = ''] = answer.split(' ')
      if (/^v\d/.test(version)) this.answers[version] = (this.answers[version] ?? 0) + 1
      else this.failures.push(`${address}: ${answer}`)
    }
  }

  /** Counts from here on; resolves to what was counted before. */
  take(): { answers: Record<string, number>; failures: string[] } {
    const taken = { answers: this.answers, failures: this.failures }
    this.answers = {}
    this.failures = []
    return taken
  }

  async stop(): Promise<void> {
    this.#stopped = true
    await Promise.all(this.#clients)
  }
}

/** What the server says, or why it says nothing. */
function question(from: Stack, host: string, port: number): Promise<string> {
  const fd = from.openSocket({ type: 'tcp', address: '0.0.0.0', port: 0 })
  const socket = new Socket({ fd, manualStart: true } as ConstructorParameters<typeof Socket>[0])
  return new Promise(resolve => {
    let heard = ''
    const end = (answer: string) => {
      clearTimeout(timer)
      socket.destroy()
      resolve(answer)
    }
    const timer = setTimeout(() => end('no answer in time'), PATIENCE)
    socket.on('data', data => {
      heard += String(data)
    })
    socket.on('end', () => end(heard || 'closed without an answer'))
    socket.on('error', ({ message }) => end(message))
    socket.connect({ host, port })
  })
}
