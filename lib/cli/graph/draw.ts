import { topologyOf } from '../../api/topology'
import type { Controller } from '../../controller'
import { modelOf } from './model'
import { svgOf } from './svg'
import { textOf } from './text'

/** What hangs on what on this host, as `cnm graph` draws it: for a terminal, or as an SVG. */
export function drawTopology(controller: Controller, form: 'text' | 'svg' = 'text'): string {
  const model = modelOf(topologyOf(controller))
  return form === 'svg' ? svgOf(model) : textOf(model)
}
