/**
 * As much of D-Bus (specification 0.43) as speaking with firewalld takes: one connection to a bus, calls and signals. The npm
 * packages for it rest or bring native code.
 */
import { connect, type Socket } from 'node:net'
import {
  CALL,
  type DbusMessage,
  decodeMessage,
  DESTINATION,
  encodeMessage,
  ERROR,
  ERROR_NAME,
  INTERFACE,
  MEMBER,
  PATH,
  REPLY_SERIAL,
  RETURN,
  SIGNAL,
  type Value,
} from './message'

export class DbusError extends Error {
  constructor(
    readonly dbusName: string,
    message: string,
  ) {
    super(`${dbusName}: ${message}`)
  }
}

export interface Signal {
  path: string
  interface: string
  member: string
  body: Value[]
}

/** One connection to a bus. Does not keep the process alive but while a call is answered. */
export class Dbus {
  private readonly socket: Socket
  private readonly waiting = new Map<number, { resolve(body: Value[]): void; reject(error: Error): void }>()
  private received: Buffer = Buffer.alloc(0)
  private greeted = false
  private serial = 0
  private ready!: () => void
  private failed!: (error: Error) => void
  private readonly greeting = new Promise<void>((resolve, reject) => {
    this.ready = resolve
    this.failed = reject
  })

  private constructor(
    path: string,
    private readonly onSignal: (signal: Signal) => void,
    private readonly onClose: () => void,
  ) {
    this.greeting.catch(() => {})
    this.socket = connect(path)
    // The zero byte carries the credentials; EXTERNAL means: believe the kernel (RFC 4422, appendix A).
    this.socket.on('connect', () =>
      this.socket.write(
        `\0AUTH EXTERNAL ${Buffer.from(String(process.getuid?.() ?? 0)).toString('hex')}\r\n`,
      ),
    )
    this.socket.on('data', data => this.receive(data))
    this.socket.on('error', error => this.end(error))
    this.socket.on('close', () => this.end(new Error('the bus closed the connection')))
  }

  static async connect(path: string, onSignal: (signal: Signal) => void, onClose: () => void): Promise<Dbus> {
    const bus = new Dbus(path, onSignal, onClose)
    try {
      await bus.greeting
      await bus.call('org.freedesktop.DBus', '/org/freedesktop/DBus', 'org.freedesktop.DBus', 'Hello')
    } catch (error) {
      bus.close()
      throw error
    }
    bus.socket.unref()
    return bus
  }

  call(
    destination: string,
    path: string,
    face: string,
    member: string,
    signature = '',
    values: Value[] = [],
    timeout = 10_000,
  ): Promise<Value[]> {
    const serial = ++this.serial
    this.socket.ref()
    return new Promise<Value[]>((resolve, reject) => {
      const timer = setTimeout(() => {
        this.waiting.delete(serial)
        reject(new Error(`${destination} did not answer ${member} within ${timeout} ms`))
      }, timeout)
      const settled = () => {
        clearTimeout(timer)
        this.waiting.delete(serial)
        if (this.waiting.size === 0) this.socket.unref()
      }
      this.waiting.set(serial, {
        resolve: body => (settled(), resolve(body)),
        reject: error => (settled(), reject(error)),
      })
      this.socket.write(
        encodeMessage(
          CALL,
          serial,
          [
            [PATH, 'o', path],
            [INTERFACE, 's', face],
            [MEMBER, 's', member],
            [DESTINATION, 's', destination],
          ],
          signature,
          values,
        ),
      )
    })
  }

  close(): void {
    this.socket.destroy()
  }

  private end(error: Error): void {
    this.failed(error)
    for (const { reject } of [...this.waiting.values()]) reject(error)
    this.onClose()
  }

  private receive(data: Buffer): void {
    this.received = Buffer.concat([this.received, data])
    try {
      if (!this.greeted && !this.greet()) return
      for (;;) {
        const found = decodeMessage(this.received)
        if (!found) return
        this.received = this.received.subarray(found.length)
        this.handle(found.message)
      }
    } catch (error) {
      this.socket.destroy(error as Error)
    }
  }

  private greet(): boolean {
    const end = this.received.indexOf('\r\n')
    if (end < 0) return false
    const line = this.received.subarray(0, end).toString()
    this.received = this.received.subarray(end + 2)
    if (!line.startsWith('OK ')) throw new Error(`the bus refused to authenticate: ${line}`)
    this.socket.write('BEGIN\r\n')
    this.greeted = true
    this.ready()
    return true
  }

  private handle({ type, fields, body }: DbusMessage): void {
    if (type === SIGNAL) {
      const text = (code: number) => String(fields.get(code) ?? '')
      this.onSignal({ path: text(PATH), interface: text(INTERFACE), member: text(MEMBER), body })
      return
    }
    const call = this.waiting.get(Number(fields.get(REPLY_SERIAL) ?? 0))
    if (type === RETURN) call?.resolve(body)
    if (type === ERROR) call?.reject(new DbusError(String(fields.get(ERROR_NAME)), String(body[0] ?? '')))
  }
}
