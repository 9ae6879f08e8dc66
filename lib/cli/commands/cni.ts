/** cnm cni: one call by a CNI runtime. */
import type { Command } from '../command'
import { loadCni } from '../late'

export const cniCommand: Command = {
  name: 'cni',
  summary: 'Answer a CNI runtime, as the plugin cnm-cni does',
  operands: '',
  least: 0,
  most: 0,
  standalone: true,
  options: [],
  description:
    'Reads CNI_COMMAND, CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME and CNI_ARGS from the environment and a network configuration from standard input (CNI 0.3.0 to 1.1.0); writes the result, or the error, to standard output.',
  examples: ['CNI_COMMAND=VERSION cnm cni </dev/null'],
  async run({ io }) {
    const { callPlugin, readAll } = loadCni()
    const { out, code } = await callPlugin(io.env, () => readAll(process.stdin))
    io.out(out)
    return code
  },
}
