/** A controller on the mocked kernel, served on a real unix socket, and a client that says everything. */
import { mkdtempSync, rmSync } from 'node:fs'
import { type IncomingMessage, request as httpRequest } from 'node:http'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Controller, type ControllerInput } from 'libcnm'
import { MockKernel } from 'libcnm/testing'
import { type Api, type ApiOptions, createApi } from '../../../lib/api'
import type { ListenOptions } from '../../../lib/api'

export interface Answer {
  status: number
  headers: IncomingMessage['headers']
  text: string
  /** Parsed; the tests look into JSON of every shape. */
  json: ReturnType<typeof JSON.parse>
}

export interface Served {
  controller: Controller
  kernel: MockKernel
  api: Api
  path: string
  directory: string
  ask(method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<Answer>
  /** Sends bytes, resolves to all that came back until the end. */
  raw(text: string | Buffer): Promise<string>
  close(): Promise<void>
}

export async function serve({
  controller: settings = {},
  api: options = {},
  listen = {},
}: {
  controller?: ControllerInput
  api?: ApiOptions | ((controller: Controller) => ApiOptions)
  listen?: ListenOptions
} = {}): Promise<Served> {
  const directory = mkdtempSync(join(tmpdir(), 'libcnm-api-'))
  const kernel = new MockKernel()
  const controller = await Controller.open({
    kernel,
    runDir: join(directory, 'run'),
    hostId: 'test',
    predefined: true,
    ...settings,
  })
  const api = createApi(controller, typeof options === 'function' ? options(controller) : options)
  const path = join(directory, 'api.sock')
  await api.listen(path, listen)
  return {
    controller,
    kernel,
    api,
    path,
    directory,
    ask: (...words) => ask(path, ...words),
    raw: text => raw(path, text),
    async close() {
      await api.close()
      await controller.close()
      rmSync(directory, { recursive: true })
    },
  }
}

export function ask(
  socketPath: string,
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const payload =
      body === undefined
        ? undefined
        : typeof body === 'string' || Buffer.isBuffer(body)
          ? body
          : JSON.stringify(body)
    const request = httpRequest(
      {
        socketPath,
        method,
        path,
        agent: false,
        headers: {
          ...(payload !== undefined && {
            'Content-Type': 'application/json',
            'Content-Length': String(Buffer.byteLength(payload)),
          }),
          ...headers,
        },
      },
      response => {
        const chunks: Buffer[] = []
        response.on('data', chunk => chunks.push(chunk))
        response.once('error', reject)
        response.once('end', () => {
          const text = Buffer.concat(chunks).toString()
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers,
            text,
            get json() {
              return JSON.parse(text)
            },
          })
        })
      },
    )
    request.once('error', reject)
    request.end(payload)
  })
}

export function raw(path: string, text: string | Buffer): Promise<string> {
  return new Promise(resolve => {
    const socket = connect(path)
    const chunks: Buffer[] = []
    socket.on('data', chunk => chunks.push(chunk))
    socket.once('error', () => {})
    socket.once('close', () => resolve(Buffer.concat(chunks).toString()))
    socket.write(text)
  })
}
