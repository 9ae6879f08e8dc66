/** A controller for the time of one call. */
import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { isCnmError } from '../base/errors'
import { Controller } from '../controller'
import { LinuxKernel, type Stack } from '../index'
import type { CniConfig } from './config'

const DEFAULT_DATA_DIR = '/var/lib/cni/libcnm'
/** Milliseconds between two attempts: from, to. */
const PAUSE = { least: 20, most: 250 } as const

export interface Opened {
  controller: Controller
  host: Stack
}

/** Each folder of state is a controller of its own, with a firewall table, a run directory and a mark of its own. */
export const controllerName = (dataDir: string): string =>
  dataDir === DEFAULT_DATA_DIR
    ? 'libcnm-cni'
    : `libcnm-cni-${createHash('sha256').update(dataDir).digest('hex').slice(0, 8)}`

/**
 * Runs `body` with the state to itself: runtimes call for several containers at once, and the calls take turns. Whatever
 * was made stays when the controller closes. `repair`: first bring the kernel to what the store says.
 */
export async function withController<T>(
  { dataDir, runDir, firewall, patience }: CniConfig,
  { repair }: { repair: boolean },
  body: (opened: Opened) => Promise<T>,
): Promise<T> {
  const kernel = new LinuxKernel()
  const name = controllerName(dataDir)
  const open = () =>
    Controller.open({
      kernel,
      name,
      dataDir,
      runDir: runDir ?? `/run/${name}`,
      firewall,
      // It would end with this process.
      userlandProxy: false,
      repairAtStart: repair,
    })
  const controller = await insist(open, patience * 1000)
  try {
    const host = await kernel.open()
    try {
      return await body({ controller, host })
    } finally {
      host.close()
    }
  } finally {
    await controller.close()
  }
}

/** Waits while another call is at work; longer each time, and not in step with the others that wait. */
async function insist<T>(attempt: () => Promise<T>, patience: number): Promise<T> {
  const until = Date.now() + patience
  for (let pause: number = PAUSE.least; ; pause = Math.min(pause * 1.5, PAUSE.most)) {
    try {
      return await attempt()
    } catch (error) {
      if (!isCnmError(error, 'ERR_STORE_LOCKED', 'ERR_CONTROLLER_EXISTS') || Date.now() > until) throw error
    }
    await sleep(pause * (0.5 + Math.random()))
  }
}
