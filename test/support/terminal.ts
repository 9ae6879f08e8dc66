import { type ChildProcess, spawn } from 'node:child_process'

/** A command on a pseudo terminal of 31 lines of 93 columns, which script(1) makes. */
export class Terminal {
  text = ''
  readonly ended: Promise<number | null>
  readonly #child: ChildProcess

  constructor(command: string, env: NodeJS.ProcessEnv) {
    const sized = `stty rows 31 cols 93; exec ${command}`
    this.#child = spawn('script', ['--quiet', '--return', '--flush', '--command', sized, '/dev/null'], {
      env: { ...env, SHELL: '/bin/sh' },
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    this.#child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.text += text
    })
    this.ended = new Promise(resolve => this.#child.once('close', resolve))
  }

  type(text: string): void {
    this.#child.stdin?.write(text)
  }

  /** Waits until it was printed; `nudge` is typed again and again meanwhile. */
  async until(wanted: RegExp, nudge = ''): Promise<void> {
    for (const end = Date.now() + 20_000; !wanted.test(this.text); ) {
      if (Date.now() > end) throw new Error(`${wanted} is not in ${JSON.stringify(this.text)}`)
      if (nudge) this.type(nudge)
      await new Promise(resolve => setTimeout(resolve, 50))
    }
  }
}
