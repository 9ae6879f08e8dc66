/** `npm run orchestrator` (root): the play, told. With addresses of etcd members as arguments it is played with etcd. */
import { play } from './play'

const started = Date.now()
const say = (text: string) =>
  console.log(`${((Date.now() - started) / 1000).toFixed(2).padStart(6)} s  ${text}`)
const etcd = process.argv.slice(2)

play(say, etcd.length ? etcd : undefined).then(
  () => process.exit(0),
  (error: unknown) => {
    console.error(error)
    process.exit(1)
  },
)
