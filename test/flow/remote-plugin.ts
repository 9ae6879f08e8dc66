/** A plugin whose answers are scripted, on a unix socket of its own. */
import { once } from 'node:events'
import { mkdirSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { createServer as createSecureServer, type ServerOptions } from 'node:https'
import type { AddressInfo } from 'node:net'
import { dirname } from 'node:path'
import { later } from './scene'

export interface Exchange {
  method: string
  body: unknown
}

/** An object is the answer; a function does as it likes with the connection. */
export type Script = object | ((response: ServerResponse, body: unknown) => void)

export class ScriptedPlugin {
  /** What was asked, in order. */
  readonly asked: Exchange[] = []
  readonly headers: IncomingMessage['headers'][] = []
  readonly #script: Record<string, Script>

  constructor(script: Record<string, Script> = {}) {
    this.#script = {
      'Plugin.Activate': { Implements: ['NetworkDriver', 'IpamDriver'] },
      'NetworkDriver.GetCapabilities': { Scope: 'local' },
      ...script,
    }
  }

  set(method: string, answer: Script): void {
    this.#script[method] = answer
  }

  methods(): string[] {
    return this.asked.map(({ method }) => method.replace(/^(NetworkDriver|IpamDriver)\./, ''))
  }

  bodyOf(method: string): unknown {
    return this.asked.find(each => each.method === method)?.body
  }

  /** `where`: path of a socket; absent: a free TCP port of the loopback, which is returned. */
  async listen(where?: string, tls?: ServerOptions): Promise<number> {
    const respond = async (request: IncomingMessage, response: ServerResponse) => {
      const chunks: Buffer[] = []
      for await (const chunk of request) chunks.push(chunk as Buffer)
      const text = Buffer.concat(chunks).toString('utf8')
      const method = (request.url ?? '').slice(1)
      const body: unknown = text === '' ? undefined : JSON.parse(text)
      this.asked.push({ method, body })
      this.headers.push(request.headers)
      const answer = this.#script[method]
      if (answer === undefined) response.writeHead(404).end('404 page not found\n')
      else if (typeof answer === 'function') answer(response, body)
      else response.writeHead(200).end(JSON.stringify(answer))
    }
    const server = tls ? createSecureServer(tls, respond) : createServer(respond)
    if (where) mkdirSync(dirname(where), { recursive: true })
    if (where) server.listen(where)
    else server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    later(() => {
      server.closeAllConnections()
      server.close()
    })
    return where ? 0 : (server.address() as AddressInfo).port
  }
}
