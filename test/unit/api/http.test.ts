/** Versions, bodies, paths and clients of every kind of badness; the server survives them all and leaks nothing. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import fc from 'fast-check'
import { createApi } from '../../../lib/api'
import { until } from '../../support/underlay'
import { ask as askAt, type Answer, serve, type Served } from './scene'

describe('one server', () => {
  let served: Served
  const ask: Served['ask'] = (...words) => served.ask(...words)
  beforeAll(async () => {
    served = await serve()
  })
  afterAll(() => served.close())
  /** Whatever was done to it: it answers, and there are the three networks of the beginning. */
  afterEach(async () => {
    const { status, json } = await ask('GET', '/networks')
    expect([status, json.length]).toEqual([200, 3])
  })

  test('ping', async () => {
    for (const [method, text] of [
      ['GET', 'OK'],
      ['HEAD', ''],
    ] as const) {
      const answer = await ask(method, '/_ping')
      expect([answer.status, answer.text]).toEqual([200, text])
      expect(answer.headers).toMatchObject({
        'api-version': '1.48',
        'docker-experimental': 'false',
        ostype: 'linux',
        server: expect.stringMatching(/^libcnm\/\d+\.\d+\.\d+ \(linux\)$/),
        'content-type': 'text/plain; charset=utf-8',
        'content-length': '2',
      })
    }
  })

  test('version and info', async () => {
    expect((await ask('GET', '/v1.30/version')).json).toMatchObject({
      ApiVersion: '1.48',
      MinAPIVersion: '1.24',
      Os: 'linux',
    })
    expect((await ask('GET', '/v1.44/info')).json).toMatchObject({
      Containers: 0,
      Plugins: { Network: expect.arrayContaining(['bridge', 'host', 'null']) },
      OSType: 'linux',
    })
  })

  test.each<[string, number, RegExp]>([
    ['/v1.49/networks', 400, /^client version 1\.49 is too new\. Maximum supported API version is 1\.48$/],
    ['/v2.0/networks', 400, /^client version 2\.0 is too new/],
    ['/v2/networks', 400, /^client version 2 is too new/],
    ['/v1.48.1/networks', 400, /^client version 1\.48\.1 is too new/],
    ['/v1.9/nosuch', 404, /^page not found$/],
    ['/v1.x/networks', 404, /^page not found$/],
    ['/v1.48', 404, /^page not found$/],
    ['/info/', 404, /^page not found$/],
    ['/networks?filters=%zz', 400, /^invalid URL escape "%zz"$/],
    ['/', 404, /^page not found$/],
    ['//networks', 404, /^page not found$/],
    ['/../networks', 404, /^page not found$/],
    ['/networks/../../etc/passwd', 404, /^network \.\.\/\.\.\/etc\/passwd not found$/],
    ['/networks/..%2f..%2fetc%2fpasswd', 404, /^network \.\.\/\.\.\/etc\/passwd not found$/],
    ['/networks/%00', 404, /not found$/],
    ['/networks/%zz', 400, /^malformed path/],
    ['/networks/%ff', 400, /^malformed path/],
    ['/networks/__proto__', 404, /^network __proto__ not found$/],
    ['/networks/bridge%0d%0aX: y', 404, /not found$/],
    ['/containers/json', 404, /^page not found$/],
  ])('GET %s: %i', async (path, status, message) => {
    const answer = await ask('GET', encodeURI(path).replace(/%25/g, '%'))
    expect([answer.status, answer.json]).toEqual([status, { message: expect.stringMatching(message) }])
    expect(answer.headers['content-type']).toBe('application/json')
  })

  test.each(['1', '1.9', '1.23', '1.23.99', '0', '.'])(
    'a client of version %s is told so in plain text: its kind would show JSON as it is',
    async version => {
      const { status, text, headers } = await ask('GET', `/v${version}/networks`)
      expect([status, text]).toEqual([
        400,
        `client version ${version} is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version\n`,
      ])
      expect(headers).toMatchObject({
        'content-type': 'text/plain; charset=utf-8',
        'api-version': '1.48',
      })
    },
  )

  test.each([
    ['PUT', '/networks/create'],
    ['POST', '/networks/create/'],
    ['PATCH', '/networks/bridge'],
    ['DELETE', '/networks'],
    ['POST', '/networks'],
    ['POST', '/_ping'],
  ])('%s %s is no route', async (method, path) => {
    const answer = await ask(method, path)
    expect([answer.status, answer.json]).toEqual([404, { message: 'page not found' }])
  })

  test('OPTIONS: whatever the path', async () => {
    for (const path of ['/networks', '/v1.41/nix']) {
      const answer = await ask('OPTIONS', path)
      expect([answer.status, answer.text]).toEqual([200, ''])
    }
    expect((await ask('OPTIONS', '/v1.99/networks')).status).toBe(400)
  })

  describe('bodies', () => {
    const TYPE = { 'Content-Type': 'application/json' }
    test.each<[string, string | Buffer, Record<string, string>, number, RegExp]>([
      ['no JSON', '{', TYPE, 400, /^invalid JSON: unexpected EOF$/],
      ['blank', '  \n', TYPE, 400, /^invalid JSON: got EOF while reading request body$/],
      ['more after it', '{"Name":"x"} {}', TYPE, 400, /^unexpected content after JSON$/],
      [
        'an array',
        '[]',
        TYPE,
        400,
        /^invalid JSON: json: cannot unmarshal array into Go value of type CreateRequest$/,
      ],
      ['a text', '"x"', TYPE, 400, /cannot unmarshal string into Go value of type CreateRequest$/],
      ['null is nothing', 'null', TYPE, 400, /^invalid name: name is empty$/],
      [
        'a number for a name',
        '{"Name":7}',
        TYPE,
        400,
        /^invalid JSON: json: cannot unmarshal number into Go struct field CreateRequest\.Name of type string$/,
      ],
      [
        'in any case',
        '{"nAmE":{}}',
        TYPE,
        400,
        /cannot unmarshal object into Go struct field CreateRequest\.Name of type string$/,
      ],
      [
        'a text for a flag',
        '{"Internal":"yes"}',
        TYPE,
        400,
        /cannot unmarshal string into Go struct field CreateRequest\.Internal of type bool$/,
      ],
      [
        'a list of labels',
        '{"Labels":["a"]}',
        TYPE,
        400,
        /cannot unmarshal array into Go struct field CreateRequest\.Labels of type map\[string\]string$/,
      ],
      [
        'a number as label',
        '{"Labels":{"a":1}}',
        TYPE,
        400,
        /cannot unmarshal number into Go struct field CreateRequest\.Labels\.a of type string$/,
      ],
      [
        'deep inside',
        '{"IPAM":{"Config":[{"Subnet":7}]}}',
        TYPE,
        400,
        /cannot unmarshal number into Go struct field CreateRequest\.IPAM\.Config\.Subnet of type string$/,
      ],
      [
        'an object for a list',
        '{"IPAM":{"Config":{}}}',
        TYPE,
        400,
        /cannot unmarshal object into Go struct field CreateRequest\.IPAM\.Config/,
      ],
      ['no type', '{}', {}, 400, /^unsupported Content-Type header \(\): must be 'application\/json'$/],
      [
        'another type',
        '{}',
        { 'Content-Type': 'text/plain' },
        400,
        /^unsupported Content-Type header \(text\/plain\)/,
      ],
      [
        'bytes that are no text',
        Buffer.from([0xff, 0xfe, 0x00]),
        TYPE,
        400,
        /^invalid JSON: invalid character 'ÿ' looking for/,
      ],
      ['a tower', '['.repeat(500_000), TYPE, 400, /^invalid JSON: exceeded max depth$/],
      [
        'a high tower',
        `{"Name":7,"x":${'['.repeat(400_000)}${']'.repeat(400_000)}}`,
        TYPE,
        400,
        /^invalid JSON: exceeded max depth$/,
      ],
      ['a prototype', '{"__proto__":{"Name":"x"}}', TYPE, 400, /^invalid name: name is empty$/],
    ])('%s', async (_, body, headers, status, message) => {
      const plain = Object.keys(headers).length ? headers : undefined
      const answer = await (plain
        ? ask('POST', '/networks/create', body, plain)
        : served
            .raw(
              `POST /networks/create HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
            )
            .then(asAnswer))
      expect([answer.status, answer.json.message]).toEqual([status, expect.stringMatching(message)])
    })

    test('unknown fields and nulls are ignored', async () => {
      const body = {
        Name: 'x',
        Colour: 'red',
        Driver: null,
        Labels: { a: null },
        IPAM: null,
        ConfigFrom: null,
      }
      const made = await ask('POST', '/networks/create', body)
      expect(made.status).toBe(201)
      expect((await ask('GET', '/networks/x')).json.Labels).toEqual({ a: '' })
      expect((await ask('DELETE', '/networks/x')).status).toBe(204)
    })

    test('10 MB are refused, told before and untold', async () => {
      const large = JSON.stringify({ Name: 'x', Options: { a: 'a'.repeat(10_000_000) } })
      const told = await ask('POST', '/networks/create', large)
      expect([told.status, told.json.message]).toEqual([413, 'request body is larger than 1048576 bytes'])
      const chunked = `POST /networks/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n${large.length.toString(16)}\r\n${large}\r\n0\r\n\r\n`
      expect(await served.raw(chunked)).toMatch(/^HTTP\/1\.1 413 /)
    })
  })

  test.each<[string, string, RegExp]>([
    ['no HTTP', 'hello\r\n\r\n', /^HTTP\/1\.1 400 Bad Request/],
    ['huge headers', `GET / HTTP/1.1\r\nHost: x\r\nX: ${'x'.repeat(100_000)}\r\n\r\n`, /^HTTP\/1\.1 431 /],
    [
      'two lengths',
      'POST /networks/create HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x',
      /^HTTP\/1\.1 400 /,
    ],
  ])('%s', async (_, text, answer) => {
    expect(await served.raw(text)).toMatch(answer)
  })

  test.each<[string, string, RegExp]>([
    ['headers that never end', 'GET /_ping HTTP/1.1\r\nHost: x\r\nX: ', /^HTTP\/1\.1 408 /],
    [
      'a body that never ends',
      'POST /networks/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"Name":',
      /^HTTP\/1\.1 408 /,
    ],
    [
      'a body that never ends, of one who wants the connection itself',
      'POST /networks/create HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"Name":',
      /^HTTP\/1\.1 408 /,
    ],
  ])('%s', async (_, text, answer) => {
    const impatient = await serve({ listen: { headersTimeout: 300, requestTimeout: 600 } })
    expect(await impatient.raw(text)).toMatch(answer)
    expect((await impatient.ask('GET', '/_ping')).status).toBe(200)
    await impatient.close()
  })

  const UPGRADE = 'Connection: Upgrade\r\nUpgrade: tcp\r\n'
  test.each([
    ['an ordinary connection', 'Content-Length: 999', ' '],
    ['an ordinary connection, in chunks', 'Transfer-Encoding: chunked', '1\r\n \r\n'],
    ['one that asks to leave HTTP', `${UPGRADE}Content-Length: 999`, ' '],
    ['one that asks to leave HTTP, in chunks', `${UPGRADE}Transfer-Encoding: chunked`, '1\r\n \r\n'],
  ])('a body that trickles, on %s: it has its time, however often something comes', async (_, how, drop) => {
    const impatient = await serve({ listen: { headersTimeout: 300, requestTimeout: 600 } })
    const text = await new Promise<string>((resolve, reject) => {
      let got = ''
      const socket = connect(impatient.path)
      const trickle = setInterval(() => socket.write(drop), 100)
      socket.on('data', (chunk: Buffer) => (got += chunk.toString()))
      socket.on('error', () => {}) // it writes on when the server has gone
      socket.once('close', () => {
        clearInterval(trickle)
        resolve(got)
      })
      socket.setTimeout(8_000, () => reject(new Error(`still open after: ${got}`)))
      socket.write(
        `POST /networks/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n${how}\r\n\r\n${drop}`,
      )
    })
    expect(text).toMatch(/^HTTP\/1\.1 408 Request Timeout\r\n/)
    expect(asAnswer(text).json).toEqual({ message: 'Request Timeout' })
    await impatient.close()
  })

  describe('a body on a connection that asks to leave HTTP', () => {
    const head = (coding: string) =>
      `POST /networks/create HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\n${coding}\r\n\r\n`
    const CHUNKED = head('Transfer-Encoding: chunked')
    const left = async () => expect((await ask('DELETE', '/networks/chunky')).status).toBe(204)

    test.each<[string, string]>([
      ['by length', `${head('Content-Length: 17')}{"Name":"chunky"}`],
      ['in chunks', `${CHUNKED}11\r\n{"Name":"chunky"}\r\n0\r\n\r\n`],
      [
        'in small chunks, with trailers',
        `${CHUNKED}8;a=b\r\n{"Name":\r\n9\r\n"chunky"}\r\n0\r\nA: b\r\n\r\n`,
      ],
      ['and a request after it', `${CHUNKED}11\r\n{"Name":"chunky"}\r\n0\r\n\r\nGET /_ping HTTP/1.1\r\n\r\n`],
    ])('%s', async (_, text) => {
      const answer = await served.raw(text)
      expect(answer).toMatch(/^HTTP\/1\.1 201 /)
      expect(answer.match(/HTTP\/1\.1/g)).toHaveLength(1)
      await left()
    })

    test.each<[string, string, number, RegExp]>([
      ['no size', `${CHUNKED}x\r\n`, 400, /^malformed chunked encoding$/],
      ['more than its size', `${CHUNKED}2\r\n{}}\r\n0\r\n\r\n`, 400, /^malformed chunked encoding$/],
      ['a line without end', `${CHUNKED}1;${'x'.repeat(5000)}`, 400, /^malformed chunked encoding$/],
      [
        'trailers without end',
        `${CHUNKED}0\r\n${'a: b\r\n'.repeat(1000)}`,
        400,
        /^malformed chunked encoding$/,
      ],
      ['a huge chunk', `${CHUNKED}ffffffff\r\n`, 413, /^request body is larger than 1048576 bytes$/],
      ['a huge length', `${head('Content-Length: 99999999')}{}`, 413, /^request body is larger/],
    ])('%s: %i', async (_, text, status, message) => {
      const answer = asAnswer(await served.raw(text))
      expect([answer.status, answer.json.message]).toEqual([status, expect.stringMatching(message)])
    })
  })

  test('a client that goes away in the middle', async () => {
    await Promise.all(
      [
        'GET /netw',
        'POST /networks/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"Na',
      ].map(
        text =>
          new Promise<void>(resolve => {
            const socket = connect(served.path, () => socket.write(text, () => socket.destroy()))
            socket.once('close', () => resolve())
          }),
      ),
    )
  })

  test('fuzz: any JSON as a body and any text as a path is answered, and changes nothing unless it is 201', async () => {
    const routes = [
      '/networks/create',
      '/networks/bridge/connect',
      '/networks/bridge/disconnect',
      '/networks/prune',
    ]
    const field = fc.constantFrom(
      'Name',
      'IPAM',
      'Config',
      'Subnet',
      'Options',
      'Labels',
      'Container',
      'EndpointConfig',
      'ConfigFrom',
      'Driver',
      'Scope',
    )
    const value = fc.letrec(tie => ({
      any: fc.oneof(
        { depthSize: 'small' },
        fc.constantFrom(null, true, 0, -1.5, 1e300, '', 'x', '10.0.0.0/8', '\0', '__proto__', '../..'),
        fc.string({ unit: 'binary', maxLength: 20 }),
        fc.array(tie('any'), { maxLength: 3 }),
        fc.dictionary(field, tie('any'), { maxKeys: 4 }),
      ),
    })).any
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...routes), value, fc.webPath(), async (route, body, path) => {
        const posted = await ask('POST', route, body as object)
        expect(posted.status === 200 || posted.status === 201 || posted.status < 500).toBe(true)
        if (posted.status === 201)
          expect((await ask('DELETE', `/networks/${posted.json.Id}`)).status).toBe(204)
        const got = await ask('GET', `/${path}`)
        expect(got.status).toBeLessThan(500)
        expect((await ask('DELETE', `/networks/${path || 'x'}`)).status).toBeGreaterThanOrEqual(400)
      }),
      { numRuns: 150, seed: 7 },
    )
  })
})

function asAnswer(text: string): Answer {
  const [head = '', body = ''] = text.split('\r\n\r\n')
  return { status: Number(head.split(' ')[1]), headers: {}, text: body, json: JSON.parse(body) }
}

const descriptors = () => readdirSync('/proc/self/fd').length

describe.each([
  ['say nothing', ''],
  ['begin a request', 'GET /_pi'],
  [
    'begin a body',
    'POST /networks/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{',
  ],
  [
    'begin a body, and want the connection',
    'POST /networks/create HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n',
  ],
])('1,000 clients that %s, and never close', (_, text) => {
  test('do not keep others out, and are put out in time', async () => {
    const served = await serve({ listen: { headersTimeout: 2_000, requestTimeout: 2_000 } })
    const before = descriptors()
    const crowd = Array.from({ length: 1000 }, () => connect({ path: served.path, allowHalfOpen: true }))
    for (const socket of crowd) {
      socket.on('error', () => {}).resume()
      if (text) socket.write(text)
    }
    await Promise.all(crowd.map(socket => once(socket, 'connect')))
    expect((await served.ask('GET', '/_ping')).status).toBe(200)
    // Each has one end in this process until the server lets go of the other.
    await until(() => descriptors() <= before + crowd.length, 'the ends of the server are closed')
    expect((await served.ask('GET', '/_ping')).status).toBe(200)
    for (const socket of crowd) socket.destroy()
    await until(() => descriptors() <= before, 'the ends of the clients are closed')
    await served.close()
  }, 30_000)
})

describe('the socket', () => {
  test('is its owner’s alone, and is gone after close', async () => {
    const served = await serve()
    expect(statSync(served.path).mode & 0o777).toBe(0o600)
    await served.api.close()
    expect(existsSync(served.path)).toBe(false)
    await served.close()
  })

  test('is taken over from the dead, not from the living; a file stays', async () => {
    const served = await serve()
    await expect(served.api.listen(served.path)).rejects.toMatchObject({ code: 'ERR_API_IN_USE' })
    expect((await served.ask('GET', '/_ping')).status).toBe(200)
    const stale = join(served.directory, 'stale.sock')
    await leaveSocket(stale)
    await served.api.listen(stale)
    expect((await askAt(stale, 'GET', '/_ping')).status).toBe(200)
    const file = join(served.directory, 'file')
    writeFileSync(file, 'precious')
    mkdirSync(join(served.directory, 'folder'))
    for (const path of [file, join(served.directory, 'folder')])
      await expect(served.api.listen(path)).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
    expect(readdirSync(served.directory)).toContain('file')
    await served.close()
  })

  test('who comes while another one closes keeps its socket', async () => {
    const served = await serve()
    const creating = served.ask('POST', '/networks/create', { Name: 'web' })
    await new Promise(resolve => served.controller.once('network.create', resolve))
    const closing = served.api.close()
    const successor = createApi(served.controller)
    await successor.listen(served.path)
    await closing
    expect((await creating).status).toBe(201)
    expect((await served.ask('GET', '/_ping')).status).toBe(200)
    await successor.close()
    expect(existsSync(served.path)).toBe(false)
    await served.close()
  })

  test('one that does not accept is alive: its socket stays', async () => {
    const served = await serve()
    const path = join(served.directory, 'busy.sock')
    const busy = spawn(process.execPath, [
      '-e',
      `require('net').createServer().listen({ path: ${JSON.stringify(path)}, backlog: 1 }, () => { process.stdout.write('.'); for (;;); })`,
    ])
    await once(busy.stdout, 'data')
    const waiting = Array.from({ length: 8 }, () => connect(path).on('error', () => {}))
    await expect(served.api.listen(path)).rejects.toMatchObject({ code: 'ERR_API_IN_USE' })
    for (const socket of waiting) socket.destroy()
    busy.kill('SIGKILL')
    await served.close()
  })

  test('close ends streams and idle connections, and lets a request finish', async () => {
    const served = await serve()
    const stream = served.ask('GET', '/events')
    const idle = await new Promise<Socket>(resolve => {
      const socket: Socket = connect(served.path, () => resolve(socket))
    })
    const closed = new Promise<void>(resolve => void idle.once('close', () => resolve()))
    const creating = served.ask('POST', '/networks/create', { Name: 'web' })
    await new Promise(resolve => served.controller.once('network.create', resolve))
    await served.api.close()
    expect((await creating).status).toBe(201)
    expect((await stream).status).toBe(200)
    await closed
    await served.close()
  })
})

/** What a killed process leaves: a name in the file system that nobody listens on. */
async function leaveSocket(path: string): Promise<void> {
  const { spawnSync } = await import('node:child_process')
  spawnSync(process.execPath, [
    '-e',
    `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`,
  ])
  expect(existsSync(path)).toBe(true)
}
