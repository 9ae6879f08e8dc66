/**
 * `npm run orchestrator` (root): the play, told. The hosts share an etcd of their own if etcd is installed, else a store in this
 * process; `-- --memory` is the latter in any case, `-- http://10.0.0.1:2379 ...` an etcd that is there.
 */
import { isEtcdInstalled } from './etcd'
import type { Store } from './lab'
import { play } from './play'

const started = Date.now()
const say = (text: string) =>
  console.log(`${((Date.now() - started) / 1000).toFixed(2).padStart(6)} s  ${text}`)
const words = process.argv.slice(2)

function choice(): Store {
  if (words.includes('--memory')) return 'memory'
  if (words.length) return { endpoints: words }
  return isEtcdInstalled() ? 'etcd' : 'memory'
}

const store = choice()
say(`the hosts share ${typeof store === 'string' ? store : store.endpoints.join(', ')}`)
play(say, store).then(
  () => process.exit(0),
  (error: unknown) => {
    console.error(error)
    process.exit(1)
  },
)
