/** What a runtime says in the environment: CNI_COMMAND and its companions. */
import { CODES, CniError } from './errors'

export const COMMANDS = ['ADD', 'DEL', 'CHECK', 'GC', 'STATUS', 'VERSION'] as const
export type CniCommand = (typeof COMMANDS)[number]

export type Environment = Readonly<Record<string, string | undefined>>

/** Where an attachment is. */
export interface Place {
  containerId: string
  ifname: string
  /** Of the container. DEL and CHECK of one that is gone may have none. */
  netns?: string
  /** CNI_ARGS: `K=V;K=V`. */
  args: CniArgs
}

export interface CniArgs {
  /** `ADDRESS[/LENGTH]`, several separated by commas. */
  ips: string[]
  mac?: string
}

const refuse = (message: string, details?: string) => new CniError(CODES.invalidEnvironment, message, details)

export function commandOf(environment: Environment): CniCommand {
  const given = environment.CNI_COMMAND
  const command = COMMANDS.find(known => known === given)
  if (command) return command
  throw refuse(
    given ? `CNI_COMMAND ${JSON.stringify(given).slice(0, 40)} is unknown` : 'CNI_COMMAND is not set',
    `one of ${COMMANDS.join(', ')}; a CNI runtime calls this program`,
  )
}

/** Throws code 4. ADD must know the namespace; the others find what they need in the store. */
export function placeOf(environment: Environment, command: 'ADD' | 'DEL' | 'CHECK'): Place {
  const { CNI_CONTAINERID: containerId, CNI_IFNAME: ifname, CNI_NETNS: netns } = environment
  const missing = [
    !containerId && 'CNI_CONTAINERID',
    !ifname && 'CNI_IFNAME',
    !netns && command !== 'DEL' && 'CNI_NETNS',
  ].filter(name => typeof name === 'string')
  if (!containerId || !ifname || missing.length) throw refuse(`${command} needs ${missing.join(', ')}`)
  if (!/^[A-Za-z0-9][A-Za-z0-9_.-]{0,254}$/.test(containerId))
    throw refuse(
      `CNI_CONTAINERID ${JSON.stringify(containerId).slice(0, 80)} is malformed`,
      'a letter or digit, then letters, digits, "_", "." or "-"',
    )
  // linux/if.h: IFNAMSIZ is 16 with the zero; dev_valid_name() refuses the rest.
  if (!/^(?!\.{1,2}$)[!-$&-.0-9;-~]{1,15}$/.test(ifname))
    throw refuse(`CNI_IFNAME ${JSON.stringify(ifname).slice(0, 40)} is no interface name`)
  if (netns && !netns.startsWith('/')) throw refuse(`CNI_NETNS ${netns} must be an absolute path`)
  return { containerId, ifname, netns: netns || undefined, args: argsOf(environment.CNI_ARGS) }
}

/** Unknown keys are refused unless `IgnoreUnknown=1` is among them, as the reference plugins do. */
function argsOf(text: string | undefined): CniArgs {
  const pairs = (text ?? '')
    .split(';')
    .filter(Boolean)
    .map(pair => {
      const at = pair.indexOf('=')
      if (at < 1) throw refuse(`CNI_ARGS: ${JSON.stringify(pair).slice(0, 80)} is not KEY=VALUE`)
      return [pair.slice(0, at), pair.slice(at + 1)] as const
    })
  const lenient = pairs.some(([key, value]) => key === 'IgnoreUnknown' && /^(1|true|t)$/i.test(value))
  const args: CniArgs = { ips: [] }
  for (const [key, value] of pairs) {
    if (key === 'IP') args.ips.push(...value.split(','))
    else if (key === 'MAC') args.mac = value
    else if (key !== 'IgnoreUnknown' && !lenient)
      throw refuse(
        `CNI_ARGS: ${JSON.stringify(key).slice(0, 40)} is unknown`,
        'known: IP, MAC; with IgnoreUnknown=1 others are passed over',
      )
  }
  return args
}
