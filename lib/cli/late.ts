/**
 * Loaded when a verb needs them. A controller, its store and its drivers are ten times as much code as a client that asks
 * one, and most verbs only ask.
 */
export const loadApi = () => require('../api') as typeof import('../api')
export const loadController = () => require('../controller') as typeof import('../controller')
export const loadCni = () => require('../cni/plugin') as typeof import('../cni/plugin')
