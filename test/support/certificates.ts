import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** An authority of one's own, a server's certificate for 127.0.0.1 and a client's, in a directory that {@link remove} takes away. */
export class Certificates {
  readonly directory = mkdtempSync(join(tmpdir(), 'libcnm-tls-'))

  constructor() {
    writeFileSync(this.file('names'), 'subjectAltName=IP:127.0.0.1')
    const key = 'ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
    const files = (name: string, out: string) => ['-keyout', this.file(`${name}.key`), '-out', this.file(out)]
    this.#openssl(`req -x509 -newkey ${key} -days 2 -subj /CN=ca`, files('ca', 'ca.crt'))
    for (const name of ['server', 'client']) {
      this.#openssl(`req -newkey ${key} -subj /CN=${name}`, files(name, `${name}.csr`))
      this.#openssl('x509 -req -days 2 -CAcreateserial', [
        ...['-in', this.file(`${name}.csr`), '-CA', this.file('ca.crt'), '-CAkey', this.file('ca.key')],
        ...['-extfile', this.file('names'), '-out', this.file(`${name}.crt`)],
      ])
    }
  }

  #openssl(words: string, files: string[]): void {
    execFileSync('openssl', [...words.split(' '), ...files], { stdio: 'pipe' })
  }

  file(name: string): string {
    return join(this.directory, name)
  }

  /** For etcd: it talks to those alone who have a certificate of the authority. */
  get server(): string[] {
    return [
      ...['--cert-file', this.file('server.crt'), '--key-file', this.file('server.key')],
      ...['--client-cert-auth', '--trusted-ca-file', this.file('ca.crt')],
    ]
  }

  get client(): { ca: string; cert: string; key: string } {
    const text = (name: string) => readFileSync(this.file(name), 'utf8')
    return { ca: text('ca.crt'), cert: text('client.crt'), key: text('client.key') }
  }

  remove(): void {
    rmSync(this.directory, { recursive: true })
  }
}
