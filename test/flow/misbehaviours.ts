/** What a plugin can do wrong in any call, and what is told of it. */
import type { Script } from './remote-plugin'

export type Misbehaviour = [what: string, script: Script, message: RegExp]

/** They are found out by their silence. */
export const SILENT: Misbehaviour[] = [
  ['hangs', () => {}, /no answer within \d+ ms/],
  ['answers slowly without end', response => void response.write('{'), /no answer within \d+ ms/],
]

export const LOUD: Misbehaviour[] = [
  ['crashes before it answers', response => void response.socket?.destroy(), /remote: plugin far, .*hang up/],
  [
    'crashes in the middle',
    response => {
      response.writeHead(200, { 'Content-Length': '100' })
      response.write('{"Inter', () => response.socket?.destroy())
    },
    /remote: plugin far, \S+: (aborted|the connection ended)/,
  ],
  ['answers 10 MB', response => void response.end('x'.repeat(10 << 20)), /larger than \d+ bytes/],
  ['answers nothing', response => void response.end(), /the answer is empty/],
  ['answers garbage', response => void response.end('\x00\x1b[31mboo'), /is not JSON: \[31mboo/],
  ['answers a list', response => void response.end('[]'), /makes no sense/],
  ['answers null', response => void response.end('null'), /makes no sense/],
  ['speaks another protocol', response => void response.socket?.end('SSH-2.0-x\r\n'), /remote: plugin far/],
  ['complains', { Err: 'no\nway' }, /: no way$/],
  [
    'fails with a reason',
    response => void response.writeHead(500).end('{"Err":"out of cheese"}'),
    /: out of cheese$/,
  ],
  ['fails without one', response => void response.writeHead(503).end(), /HTTP status 503/],
  ['fails in prose', response => void response.writeHead(500).end('oh <b>dear</b>'), /oh <b>dear<\/b>/],
]

/** No failure where a method need not be there. */
export const LACKS: Misbehaviour = [
  'does not have it',
  response => void response.writeHead(404).end('404 page not found\n'),
  /404 page not/,
]
