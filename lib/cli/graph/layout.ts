/** Where everything goes, in pixels. Pure. */
import { width as columns } from '../output'
import type { Graph, GraphEdge } from './model'

export interface Box {
  x: number
  y: number
  width: number
  height: number
}

/** A row of text in a box; `at` is its baseline. */
export interface Row {
  kind: 'name' | 'detail' | 'address' | 'port'
  text: string
  at: number
}

export interface Panel extends Box {
  rows: Row[]
}

/** An interface inside a sandbox, where a pair ends. */
export interface Socket {
  x: number
  y: number
}

export interface Layout {
  width: number
  height: number
  networks: Panel[]
  sandboxes: Panel[]
  edges: {
    edge: GraphEdge
    from: Socket
    to: Socket
    /** The host's end of the pair, written above its line. */
    label: { x: number; y: number; text: string }
  }[]
}

/** Pixels. A letter of the 12 px monospaced font is some 7.3 wide, one of Chinese twice that. */
const LETTER = 7.3
const LINE = 17
const PAD = 12
const GAP = 16
const MARGIN = 24
const TITLE = 64
/** Between the columns: what the lines need to bend, beside the label. */
const BEND = 110

const PLACEHOLDER: Record<string, string> = { host: 'the stack of the host', deferred: 'no namespace yet' }

/** Heights follow from how many rows there are; widths from the longest text, so that nothing overlaps. */
export function layout(graph: Graph): Layout {
  const networkTexts = graph.networks.map(({ name, kind, lines }) => [name, kind, ...lines])
  const sandboxes = graph.sandboxes.map(({ name, mode }, at) => {
    const edges = graph.edges.filter(({ sandbox }) => sandbox === at)
    const rows: Omit<Row, 'at'>[] = [{ kind: 'name', text: name }]
    if (mode !== 'own') rows.push({ kind: 'detail', text: PLACEHOLDER[mode] ?? mode })
    const starts = edges.map(edge => {
      const start = rows.length
      rows.push(...rowsOf(edge))
      return start
    })
    return { edges, rows, starts }
  })
  const left = widest(networkTexts.flat()) + 2 * PAD
  const middle = widest(graph.edges.map(({ from }) => from)) + BEND
  const right = widest(sandboxes.flatMap(({ rows }) => rows.map(({ text }) => text))) + 2 * PAD
  const boxHeight = (rows: number) => rows * LINE + PAD

  const sandboxBoxes = pile(
    sandboxes.map(({ rows }) => boxHeight(rows.length)),
    MARGIN + left + middle,
    right,
  ).map((box, at) => ({ ...box, rows: placed(box, sandboxes[at]?.rows ?? []) }))
  const total = (boxes: Box[]) => Math.max(TITLE + MARGIN, ...boxes.map(({ y, height }) => y + height))
  const networkBoxes = spread(
    networkTexts.map((texts, at) =>
      Math.max(boxHeight(texts.length), graph.edges.filter(({ network }) => network === at).length * 6),
    ),
    left,
    total(sandboxBoxes),
  ).map((box, at) => ({
    ...box,
    rows: placed(
      box,
      (networkTexts[at] ?? []).map((text, line) => ({ kind: line === 0 ? 'name' : 'detail', text })),
    ),
  }))

  // From the top down on both sides, so that lines of one network do not cross each other.
  const reached = graph.networks.map(() => 0)
  const edges = sandboxes.flatMap(({ edges: own, starts }, at) => {
    const box = sandboxBoxes[at] as Panel
    return own.map((edge, place) => {
      const network = networkBoxes[edge.network] as Panel
      const count = graph.edges.filter(other => other.network === edge.network).length
      const slot = (reached[edge.network] ?? 0) + 1
      reached[edge.network] = slot
      const y = box.y + PAD / 2 + ((starts[place] ?? 0) + 0.5) * LINE
      return {
        edge,
        from: { x: network.x + network.width, y: network.y + (network.height * slot) / (count + 1) },
        to: { x: box.x, y },
        label: { x: box.x - PAD, y: y - 5, text: edge.from },
      }
    })
  })
  return {
    width: 2 * MARGIN + left + middle + right,
    height: Math.max(total(sandboxBoxes), total(networkBoxes)) + MARGIN,
    networks: networkBoxes,
    sandboxes: sandboxBoxes,
    edges,
  }
}

/** An interface with its addresses, then what of it is published. */
function rowsOf({ to, addresses, ports }: GraphEdge): Omit<Row, 'at'>[] {
  const [first = '', ...others] = addresses
  const indent = ' '.repeat(columns(to) + 1)
  return [
    { kind: 'address', text: [to, first].filter(Boolean).join(' ') || 'no interface of its own' },
    ...others.map(text => ({ kind: 'address' as const, text: indent + text })),
    ...ports.map(text => ({ kind: 'port' as const, text: `${indent}⇄ ${text}` })),
  ]
}

const placed = (box: Box, rows: Omit<Row, 'at'>[]): Row[] =>
  rows.map((row, line) => ({ ...row, at: box.y + PAD / 2 + (line + 0.5) * LINE + 4 }))

const widest = (texts: string[]) => Math.max(8, ...texts.map(columns)) * LETTER

/** One below the other. */
function pile(heights: number[], x: number, width: number): Box[] {
  let y = TITLE
  return heights.map(height => {
    const box = { x, y, width, height }
    y += height + GAP
    return box
  })
}

/** One below the other, with equal room between them down to the bottom of the other column. */
function spread(heights: number[], width: number, bottom: number): Box[] {
  const used = heights.reduce((total, height) => total + height + GAP, -GAP)
  const room = Math.max(0, bottom - TITLE - used) / (heights.length + 1)
  return pile(heights, MARGIN, width).map((box, at) => ({ ...box, y: box.y + room * (at + 1) }))
}
