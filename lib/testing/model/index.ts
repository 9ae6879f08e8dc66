export { addAddress, showAddress, stopIpv6 } from './addresses'
export { applyChange } from './changes'
export { makeLink, restartIpv6, setUp, showLink, unlink } from './links'
export { addRoute, showRoute } from './routes'
