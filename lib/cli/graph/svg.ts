/** The picture as SVG. Pure. Names are whatever people made them: everything is escaped. */
import { type Box, layout } from './layout'
import type { Graph } from './model'

export function svgOf(graph: Graph): string {
  const { width, height, networks, sandboxes, edges } = layout(graph)
  const parts: string[] = []
  for (const { edge, x1, y1, x2, y2, labels } of edges) {
    const bend = (x2 - x1) / 3
    const path = `M${n(x1)} ${n(y1)} C${n(x1 + bend)} ${n(y1)} ${n(x1 + bend)} ${n(y2)} ${n(x1 + 2 * bend)} ${n(y2)} H${n(x2)}`
    parts.push(`<path class="${edge.gateway ? 'edge gateway' : 'edge'}" d="${path}"/>`)
    for (const label of labels)
      parts.push(
        `<text class="${label.text.startsWith('⇄') ? 'port' : 'label'}" x="${n(label.x)}" y="${n(label.y)}" text-anchor="end">${xml(label.text)}</text>`,
      )
  }
  networks.forEach((box, at) => {
    const network = graph.networks[at]
    if (network)
      parts.push(
        boxOf(box, network.internal ? 'network internal' : 'network', [
          network.name,
          network.kind,
          ...network.lines,
        ]),
      )
  })
  sandboxes.forEach((box, at) => {
    const sandbox = graph.sandboxes[at]
    if (sandbox) parts.push(boxOf(box, 'sandbox', [sandbox.name, sandbox.mode]))
  })
  return `<?xml version="1.0" encoding="UTF-8"?>
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${n(width)} ${n(height)}" width="${n(width)}" height="${n(height)}" role="img">
<title>${xml(graph.title)}</title>
<style>
svg { background: #fff; font: 12px ui-monospace, monospace; }
.network { fill: #e8f1fb; stroke: #2a6fb0; } .internal { stroke-dasharray: 4 3; } .sandbox { fill: #eef7ea; stroke: #3f8f3a; }
.edge { fill: none; stroke: #777; } .gateway { stroke: #2a6fb0; stroke-width: 2; }
.name { font-weight: bold; } .label { fill: #444; paint-order: stroke; stroke: #fff; stroke-width: 4px; }
.port { fill: #a33; paint-order: stroke; stroke: #fff; stroke-width: 4px; } .title { font-size: 14px; font-weight: bold; }
</style>
<text class="title" x="24" y="28">${xml(graph.title)}</text>
${parts.join('\n')}
</svg>
`
}

function boxOf({ x, y, width, height }: Box, kind: string, lines: string[]): string {
  const texts = lines.map(
    (line, at) =>
      `<text class="${at === 0 ? 'name' : ''}" x="${n(x + 12)}" y="${n(y + 18 + at * 16)}">${xml(line)}</text>`,
  )
  return `<rect class="${kind}" x="${n(x)}" y="${n(y)}" width="${n(width)}" height="${n(height)}" rx="6"/>${texts.join('')}`
}

const n = (value: number) => String(Math.round(value * 10) / 10)

/** XML 1.0 allows neither the five characters bare nor control characters at all. */
export function xml(text: string): string {
  return text
    .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f\ufffe\uffff]/g, '\ufffd')
    .replace(/(?:[\ud800-\udbff](?![\udc00-\udfff]))|(?:(?<![\ud800-\udbff])[\udc00-\udfff])/g, '\ufffd')
    .replace(/[&<>"']/g, c => `&#${c.charCodeAt(0)};`)
}
