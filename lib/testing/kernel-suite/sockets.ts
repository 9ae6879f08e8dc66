import { SCENE } from './changes'
import type { Lab } from './lab'

/** Sockets opened inside a namespace. */
export function sockets(lab: Lab): void {
  describe('sockets', () => {
    const fds: number[] = []
    const bind = (type: 'udp' | 'tcp', address: string, port: number, more: object = {}): string => {
      try {
        fds.push(lab.host.openSocket({ type, address, port, ...(type === 'tcp' && { listen: 8 }), ...more }))
        return 'ok'
      } catch (error) {
        return (error as { details: { errno: string } }).details.errno
      }
    }
    afterEach(() => {
      for (const fd of fds.splice(0)) lab.host.closeFd(fd)
    })

    test('a port is taken once: the wildcard overlaps every address', () => {
      expect(bind('tcp', '0.0.0.0', 80)).toBe('ok')
      expect(bind('tcp', '0.0.0.0', 80)).toBe('EADDRINUSE')
      expect(bind('tcp', '127.0.0.1', 80)).toBe('EADDRINUSE')
      expect(bind('udp', '127.0.0.1', 80)).toBe('ok')
      expect(bind('udp', '0.0.0.0', 80)).toBe('EADDRINUSE')
      expect(bind('udp', '127.0.0.2', 80)).toBe('ok')
      expect(bind('tcp', '::', 80)).toBe('ok')
      expect(bind('tcp', '::1', 80)).toBe('EADDRINUSE')
      expect(bind('tcp', '0.0.0.0', 81)).toBe('ok')
    })

    test('closed, it is free again', () => {
      const fd = lab.host.openSocket({ type: 'udp', address: '0.0.0.0', port: 80 })
      expect(bind('udp', '0.0.0.0', 80)).toBe('EADDRINUSE')
      lab.host.closeFd(fd)
      expect(bind('udp', '0.0.0.0', 80)).toBe('ok')
    })

    test('SO_REUSEADDR: UDP shares, TCP does not share with a listener', () => {
      const more = { reuseAddress: true }
      expect(bind('udp', '0.0.0.0', 80, more)).toBe('ok')
      expect(bind('udp', '127.0.0.1', 80, more)).toBe('ok')
      expect(bind('udp', '127.0.0.1', 80)).toBe('EADDRINUSE')
      expect(bind('tcp', '0.0.0.0', 80, more)).toBe('ok')
      expect(bind('tcp', '127.0.0.1', 80, more)).toBe('EADDRINUSE')
      expect(bind('tcp', '127.0.0.1', 81, { ...more, listen: undefined })).toBe('ok')
      expect(bind('tcp', '0.0.0.0', 81, { ...more, listen: undefined })).toBe('ok')
    })

    test('the address must be here, unless FREEBIND', async () => {
      expect(bind('udp', '10.0.0.1', 80)).toBe('EADDRNOTAVAIL')
      expect(bind('udp', '10.0.0.1', 80, { freeBind: true })).toBe('ok')
      expect(bind('tcp', 'fd00::1', 80)).toBe('EADDRNOTAVAIL')
      expect(bind('tcp', 'fd00::1', 80, { freeBind: true })).toBe('ok')
      expect(bind('tcp', '127.5.0.1', 80)).toBe('ok')
      await lab.host.apply(SCENE)
      expect(bind('tcp', '10.0.0.1', 81)).toBe('ok')
      expect(bind('tcp', 'fd00::1', 81)).toBe('ok')
    })

    test('each namespace has its own ports', async () => {
      const other = lab.open(await lab.kernel.create(lab.at('other')))
      expect(bind('tcp', '0.0.0.0', 80)).toBe('ok')
      fds.push(other.openSocket({ type: 'tcp', address: '0.0.0.0', port: 80, listen: 1 }))
    })
  })
}
