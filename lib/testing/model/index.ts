export { showAddress, stopIpv6, addAddress } from './addresses'
export { applyChange } from './changes'
export { addLink, makeLink, restartIpv6, setUp, showLink, unlink } from './links'
export { addRoute, showRoute } from './routes'
