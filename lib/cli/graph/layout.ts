/** Where everything goes, in pixels. Pure. */
import type { Graph, GraphEdge } from './model'

export interface Box {
  x: number
  y: number
  width: number
  height: number
}

export interface Layout {
  width: number
  height: number
  networks: Box[]
  sandboxes: Box[]
  edges: {
    edge: GraphEdge
    x1: number
    y1: number
    x2: number
    y2: number
    labels: { x: number; y: number; text: string }[]
  }[]
}

/** Pixels. A letter of the 12 px monospaced font is some 7.3 wide. */
const LETTER = 7.3
const LINE = 16
const PAD = 12
const GAP = 18
const MARGIN = 24
const TITLE = 32

/** Heights follow from how many lines arrive; widths from the longest text, so that nothing overlaps. */
export function layout(graph: Graph): Layout {
  const labelsOf = ({ from, to, addresses, ports }: GraphEdge) => [
    [from, to].filter(Boolean).join(' ─ '),
    ...addresses,
    ...ports.map(port => `⇄ ${port}`),
  ]
  const rows = (edge: GraphEdge) => labelsOf(edge).filter(Boolean).length || 1
  const edgesOfNetwork = graph.networks.map((_, at) => graph.edges.filter(({ network }) => network === at))
  const edgesOfSandbox = graph.sandboxes.map((_, at) => graph.edges.filter(({ sandbox }) => sandbox === at))
  const widest = (texts: string[]) => Math.max(8, ...texts.map(text => [...text].length)) * LETTER
  const left = widest(graph.networks.flatMap(({ name, kind, lines }) => [name, kind, ...lines])) + 2 * PAD
  const right = widest(graph.sandboxes.flatMap(({ name, mode }) => [name, mode])) + 2 * PAD
  const middle = widest(graph.edges.flatMap(labelsOf)) + 140
  const stack = (heights: number[], x: number, width: number): Box[] => {
    let y = TITLE + MARGIN
    return heights.map(height => {
      const box = { x, y, width, height }
      y += height + GAP
      return box
    })
  }
  const networks = stack(
    graph.networks.map(({ lines }, at) =>
      Math.max((2 + lines.length) * LINE + PAD, sum((edgesOfNetwork[at] ?? []).map(() => LINE)) + PAD),
    ),
    MARGIN,
    left,
  )
  const sandboxes = stack(
    graph.sandboxes.map((_, at) =>
      Math.max(2 * LINE + PAD, sum((edgesOfSandbox[at] ?? []).map(edge => (rows(edge) + 0.5) * LINE)) + PAD),
    ),
    MARGIN + left + middle,
    right,
  )
  // Labels stand beside the sandbox, where each has room of its own; the lines fan out to the networks.
  const reached = graph.networks.map(() => 0)
  const edges = graph.sandboxes.flatMap((_, at) => {
    const box = sandboxes[at] as Box
    let y = box.y + PAD / 2
    return (edgesOfSandbox[at] ?? []).map(edge => {
      const height = (rows(edge) + 0.5) * LINE
      const network = networks[edge.network] as Box
      const count = edgesOfNetwork[edge.network]?.length ?? 1
      const slot = (reached[edge.network] ?? 0) + 1
      reached[edge.network] = slot
      const y2 = y + height / 2
      const placed = {
        edge,
        x1: network.x + network.width,
        y1: network.y + (network.height * slot) / (count + 1),
        x2: box.x,
        y2,
        labels: labelsOf(edge)
          .filter(Boolean)
          .map((text, line) => ({ x: box.x - 10, y: y + (line + 1) * LINE - 2, text })),
      }
      y += height
      return placed
    })
  })
  const bottom = Math.max(
    TITLE + MARGIN + LINE,
    ...[...networks, ...sandboxes].map(({ y, height }) => y + height),
  )
  return { width: 2 * MARGIN + left + middle + right, height: bottom + MARGIN, networks, sandboxes, edges }
}

const sum = (list: number[]) => list.reduce((total, one) => total + one, 0)
