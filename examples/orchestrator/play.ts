/** The whole of it: deploys, rolls an update under load, loses a host, and gets it back. */
import { drawTopology } from 'libcnm'
import { type Host, Lab, type Store } from './lab'
import { Load } from './load'
import { Orchestrator } from './orchestrator'
import { program } from './program'

const PORT = 8080
const PUBLISHED = 9000

export interface Outcome {
  roll: ReturnType<Load['take']>
  loss: ReturnType<Load['take']>
  recovered: ReturnType<Load['take']>
  tasks: Record<'deployed' | 'rolled' | 'recovered' | 'returned', ReturnType<Orchestrator['tasks']>>
  pictures: string[]
}

export async function play(say: (text: string) => void, store: Store): Promise<Outcome> {
  const lab = await Lab.build(3, store)
  const orchestrator = new Orchestrator(say)
  const alive = () => lab.hosts.filter(({ controller }) => controller)
  let load: Load | undefined
  try {
    for (const { name, controller } of lab.hosts) if (controller) await orchestrator.addHost(name, controller)
    const versions = { one: program(lab.kernel, 'v1', PORT), two: program(lab.kernel, 'v2', PORT) }

    say('deploy: three replicas of v1')
    await orchestrator.deploy({
      name: 'web',
      network: 'apps',
      replicas: 3,
      program: versions.one,
      port: PORT,
      publishedPort: PUBLISHED,
    })
    const deployed = orchestrator.tasks()
    const pictures = lab.hosts.flatMap(({ controller }) => (controller ? [drawTopology(controller)] : []))
    for (const picture of pictures) say(`\n${picture}`)

    // Whichever host is asked, whoever serves answers.
    load = new Load(lab.outside, () => alive().map(({ address }) => ({ address, port: PUBLISHED })))
    await answering(load)

    say('roll: v2, under load')
    load.take()
    await orchestrator.roll(versions.two)
    const roll = load.take()
    say(`${sum(roll.answers)} answers, ${roll.failures.length} failures`)
    const rolled = orchestrator.tasks()

    const [, , third] = lab.hosts as [Host, Host, Host]
    say(`${third.name} falls silent`)
    const missed = new Promise<void>(resolve =>
      lab.hosts[0]?.controller?.on('host.leave', ({ host }) => host.name === third.name && resolve()),
    )
    await lab.fell(third)
    await missed
    await orchestrator.loseHost(third.name)
    const loss = load.take()
    say(`replaced; ${sum(loss.answers)} answers and ${loss.failures.length} failures meanwhile`)
    await answering(load)
    load.take()
    await new Promise(resolve => setTimeout(resolve, 1_000))
    const recovered = load.take()
    say(`${sum(recovered.answers)} answers, ${recovered.failures.length} failures`)
    const afterLoss = orchestrator.tasks()

    say(`${third.name} comes back`)
    await lab.start(third)
    if (third.controller) await orchestrator.addHost(third.name, third.controller)
    await orchestrator.scale(4)
    const returned = orchestrator.tasks()
    await load.stop()
    load = undefined
    await orchestrator.remove()
    return {
      roll,
      loss,
      recovered,
      tasks: { deployed, rolled, recovered: afterLoss, returned },
      pictures,
    }
  } finally {
    await load?.stop()
    await lab.close()
  }
}

const sum = (counts: Record<string, number>): number => Object.values(counts).reduce((a, b) => a + b, 0)

/** Until nothing fails for a moment. */
async function answering(load: Load): Promise<void> {
  for (let attempt = 0; attempt < 100; attempt++) {
    load.take()
    await new Promise(resolve => setTimeout(resolve, 300))
    const { answers, failures } = load.take()
    if (sum(answers) > 0 && failures.length === 0) return
  }
  throw new Error('the service does not answer')
}
