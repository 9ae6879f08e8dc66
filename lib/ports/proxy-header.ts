import { familyOf, ipBytes } from '../base/cidr'

/** The protocol's own: CR LF CR LF NUL CR LF "QUIT" LF. */
const SIGNATURE = Buffer.from('0d0a0d0a000d0a515549540a', 'hex')
const VERSION_2_PROXY = 0x21
const TCP_OVER: Record<4 | 6, number> = { 4: 0x11, 6: 0x21 }

export interface Flow {
  source: string
  sourcePort: number
  destination: string
  destinationPort: number
}

/** PROXY protocol version 2 (haproxy.org, proxy-protocol.txt, 2.2): who connected, and to what, before the first byte of the stream. */
export function proxyHeader(flow: Flow): Buffer {
  const source = ipBytes(flow.source)
  const destination = ipBytes(flow.destination)
  const head = Buffer.alloc(4)
  head[0] = VERSION_2_PROXY
  head[1] = TCP_OVER[familyOf(flow.source)]
  head.writeUInt16BE(source.length + destination.length + 4, 2)
  const ports = Buffer.alloc(4)
  ports.writeUInt16BE(flow.sourcePort, 0)
  ports.writeUInt16BE(flow.destinationPort, 2)
  return Buffer.concat([SIGNATURE, head, source, destination, ports])
}
