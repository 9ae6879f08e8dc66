/** The picture for a terminal: a tree a network. Pure. */
import { type Colour, visible } from '../output'
import type { Graph } from './model'

type Paint = (colour: Colour, text: string) => string

export function textOf(graph: Graph, paint: Paint = (_, text) => text): string {
  const lines = [paint('bold', visible(graph.title))]
  graph.networks.forEach((network, at) => {
    lines.push(
      '',
      `${paint('cyan', visible(network.name))}  ${paint('dim', visible(network.kind))}`,
      ...network.lines.map(line => `│  ${visible(line)}`),
    )
    const edges = graph.edges.filter(edge => edge.network === at)
    edges.forEach((edge, place) => {
      const last = place === edges.length - 1
      const sandbox = graph.sandboxes[edge.sandbox]
      const pair = [edge.from, edge.to].filter(Boolean).join(' ─ ')
      lines.push(
        `${last ? '└─' : '├─'} ${visible(pair)}${pair ? ' ─ ' : ''}${paint('green', visible(sandbox?.name ?? ''))}${edge.gateway ? paint('dim', '  (gateway)') : ''}`,
      )
      const stem = last ? '   ' : '│  '
      for (const address of edge.addresses) lines.push(`${stem}   ${visible(address)}`)
      for (const port of edge.ports) lines.push(`${stem}   ${paint('yellow', visible(port))}`)
    })
  })
  const alone = graph.sandboxes.filter((_, at) => !graph.edges.some(({ sandbox }) => sandbox === at))
  if (alone.length)
    lines.push(
      '',
      paint('dim', 'on no network of their own'),
      ...alone.map(({ name, mode }) => `   ${visible(name)}  ${visible(mode)}`),
    )
  return `${lines.join('\n')}\n`
}
