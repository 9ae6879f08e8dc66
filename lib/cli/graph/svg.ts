/** The picture as SVG. Pure. Names are whatever people made them: everything is escaped. */
import { layout, type Panel } from './layout'
import type { Graph } from './model'

export function svgOf(graph: Graph): string {
  const { width, height, networks, sandboxes, edges } = layout(graph)
  const parts: string[] = []
  for (const { edge, from, to } of edges) {
    const turn = from.x + (to.x - from.x) / 2.6
    const middle = (from.x + turn) / 2
    const path = `M${n(from.x)} ${n(from.y)} C${n(middle)} ${n(from.y)} ${n(middle)} ${n(to.y)} ${n(turn)} ${n(to.y)} H${n(to.x)}`
    parts.push(`<path class="${edge.gateway ? 'edge gateway' : 'edge'}" d="${path}"/>`)
  }
  for (const { label } of edges)
    if (label.text)
      parts.push(
        `<text class="veth" x="${n(label.x)}" y="${n(label.y)}" text-anchor="end">${xml(label.text)}</text>`,
      )
  networks.forEach((panel, at) => {
    parts.push(panelOf(panel, graph.networks[at]?.internal ? 'network internal' : 'network'))
  })
  for (const panel of sandboxes) parts.push(panelOf(panel, 'sandbox'))
  for (const { edge, from, to } of edges)
    for (const { x, y } of [from, to])
      parts.push(`<circle class="${edge.gateway ? 'end gateway' : 'end'}" cx="${n(x)}" cy="${n(y)}" r="3"/>`)
  return `<?xml version="1.0" encoding="UTF-8"?>
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${n(width)} ${n(height)}" width="${n(width)}" height="${n(height)}" role="img">
<title>${xml(graph.title)}</title>
<style>${STYLE}</style>
<rect class="paper" width="100%" height="100%"/>
<text class="title" x="24" y="28">${xml(graph.title)}</text>
${headings(networks[0], sandboxes[0])}
${parts.join('\n')}
</svg>
`
}

const headings = (network?: Panel, sandbox?: Panel): string =>
  [
    network && `<text class="veth" x="${n(network.x)}" y="54">networks, on the host</text>`,
    sandbox && `<text class="veth" x="${n(sandbox.x)}" y="54">sandboxes, a namespace each</text>`,
  ]
    .filter(Boolean)
    .join('')

/** Light, and dark where the reader's system is. */
const STYLE = `
text { font: 12px ui-monospace, "DejaVu Sans Mono", monospace; fill: #333; white-space: pre; }
.paper { fill: #fff; }
.network { fill: #e8f1fb; stroke: #2a6fb0; } .internal { stroke-dasharray: 5 3; } .sandbox { fill: #eef7ea; stroke: #3f8f3a; }
.edge { fill: none; stroke: #888; stroke-width: 1.2; } .end { fill: #888; }
.edge.gateway { stroke: #2a6fb0; stroke-width: 2; } .end.gateway { fill: #2a6fb0; }
.title { font-size: 14px; font-weight: bold; } .name { font-weight: bold; fill: #111; }
.veth { font-size: 11px; fill: #666; } .port { fill: #a8323a; }
@media (prefers-color-scheme: dark) {
text { fill: #ccc; } .paper { fill: #15181c; } .name, .title { fill: #f2f2f2; } .veth { fill: #999; } .port { fill: #ff8f8a; }
.network { fill: #16283c; stroke: #5aa2e6; } .sandbox { fill: #182b18; stroke: #69bb63; }
.edge.gateway { stroke: #5aa2e6; } .end.gateway { fill: #5aa2e6; }
}
`

function panelOf({ x, y, width, height, rows }: Panel, kind: string): string {
  const texts = rows.map(
    row =>
      `<text class="${row.kind}" x="${n(x + 12)}" y="${n(row.at)}" xml:space="preserve">${xml(row.text)}</text>`,
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
