/** The completion scripts in the shells that they are for, with a terminal and the Tab key. */
import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { completion, SHELLS, type Shell } from '../../../lib/cli/completion'
import { COMMANDS } from '../../../lib/cli/run'
import { Terminal } from '../../support/terminal'

let directory: string
let env: NodeJS.ProcessEnv
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'libcnm-completion-'))
  env = {
    PATH: `${directory}:${process.env.PATH}`,
    HOME: directory,
    TERM: 'xterm',
    LOG: join(directory, 'log'),
    PS1: 'ready> ',
  }
  // It knows a network and a container, and writes down what else it is asked to do.
  const cnm = `#!/bin/sh
case "$1 $2" in
  'network ls') echo blue-net ;;
  'sandbox ls') echo container-one ;;
  *) printf '%s|' "$@" >>"$LOG"; echo >>"$LOG"; echo noted ;;
esac
`
  writeFileSync(join(directory, 'cnm'), cnm)
  chmodSync(join(directory, 'cnm'), 0o755)
  for (const shell of SHELLS) writeFileSync(join(directory, shell), completion(shell, COMMANDS))
})
afterAll(() => rmSync(directory, { recursive: true, force: true }))

const START: Record<Shell, { command: string; load: string }> = {
  bash: { command: 'bash --norc --noprofile -i', load: 'source ~/bash' },
  zsh: { command: 'zsh -f -i', load: 'autoload -U compinit; compinit -u -D; PS1="ready> "; source ~/zsh' },
  fish: {
    command: 'fish --no-config -i',
    load: 'function fish_prompt; echo "ready> "; end; source ~/fish',
  },
}

/** What is typed, and the words that cnm is called with. */
const LINES: [string, string[]][] = [
  ['netw\tconnec\tblu\tcont\t', ['network', 'connect', 'blue-net', 'container-one']],
  [
    'network create --subn\t10.1.0.0/24 --config-fr\tbl\tx',
    ['network', 'create', '--subnet', '10.1.0.0/24', '--config-from', 'blue-net', 'x'],
  ],
  ['gra\t--outp\tsv\t', ['graph', '--output', 'svg']],
  ['sandbox rm -f cont\t', ['sandbox', 'rm', '-f', 'container-one']],
  [
    '-H unix:///x --name=n network conn\tblu\tcont\t',
    ['-H', 'unix:///x', '--name', 'n', 'network', 'connect', 'blue-net', 'container-one'],
  ],
  [
    'network connect -H unix:///x blu\tcont\t',
    ['network', 'connect', '-H', 'unix:///x', 'blue-net', 'container-one'],
  ],
  [
    'network connect --ip 10.0.0.9 blu\tcont\t',
    ['network', 'connect', '--ip', '10.0.0.9', 'blue-net', 'container-one'],
  ],
]

describe.each(SHELLS)('%s', shell => {
  test('reads the script without a word', () => {
    expect(spawnSync(shell, ['-n', join(directory, shell)], { encoding: 'utf8', env })).toMatchObject({
      status: 0,
      stdout: '',
      stderr: '',
    })
  })

  test.each(LINES)('cnm %j', async (typed, expected) => {
    rmSync(env.LOG as string, { force: true })
    const { command, load } = START[shell]
    const terminal = new Terminal(command, env)
    terminal.type(`${load}; echo lo''aded\r`)
    await terminal.until(/loaded/)
    terminal.type(`cnm ${typed}\r`)
    await terminal.until(/noted/)
    terminal.type('exit\r')
    await terminal.ended
    expect(existsSync(env.LOG as string)).toBe(true)
    const words = readFileSync(env.LOG as string, 'utf8')
      .trim()
      .split('|')
    // --option=VALUE is as good as --option VALUE
    expect(words.flatMap(word => (word.startsWith('--') ? word.split('=') : word)).slice(0, -1)).toEqual(
      expected,
    )
  })
})

test('every verb and every option is offered by each script', () => {
  for (const shell of SHELLS) {
    const script = completion(shell, COMMANDS)
    for (const { name, options } of COMMANDS) {
      expect(script).toContain(name.split(' ').at(-1))
      for (const option of options) expect(script).toContain(option.name)
    }
  }
})
