import { mkdir, readdir, stat } from 'node:fs/promises'
import { constants } from 'node:os'
import { dirname, join } from 'node:path'
import type { ErrorCode } from '../base/errors'
import { type Binding, loadBinding } from './binding'
import { isNativeError, systemError } from './errors'
import type { Kernel, Stack, Step } from './kernel'
import { pace } from './pace'
import { LinuxStack } from './stack'
import { transact } from './transact'

/** EINVAL: what is there is no network namespace. ESRCH: the process of /proc/PID/ns/net has ended meanwhile. */
const ABSENT: Partial<Record<string, ErrorCode>> = {
  ENOENT: 'ERR_NETNS_NOT_FOUND',
  ENOTDIR: 'ERR_NETNS_NOT_FOUND',
  ESRCH: 'ERR_NETNS_NOT_FOUND',
  EINVAL: 'ERR_NETNS_NOT_FOUND',
}
const TAKEN: Partial<Record<string, ErrorCode>> = { EEXIST: 'ERR_NETNS_EXISTS' }

/** Linux itself, through the native addon. */
export class LinuxKernel implements Kernel {
  constructor(private readonly binding: Binding = loadBinding()) {}

  async open(path?: string): Promise<Stack> {
    return this.opened(path ?? null, path)
  }

  async create(path: string): Promise<Stack> {
    const what = `create network namespace ${path}`
    try {
      const { ns, inode, route } = await this.created(path)
      return new LinuxStack(this.binding, ns, inode, path, route)
    } catch (error) {
      throw systemError(error, what, { path }, TAKEN)
    }
  }

  async bind(source: string, path: string): Promise<Stack> {
    const stack = this.opened(source, path)
    try {
      if (await this.isBound(path, stack.inode)) return stack
      await mkdir(dirname(path), { recursive: true, mode: 0o755 })
      this.binding.removeNetns(path)
      this.binding.bindNetns(stack.descriptor, path)
      return stack
    } catch (error) {
      stack.close()
      throw systemError(error, `bind network namespace ${source} to ${path}`, { source, path }, TAKEN)
    }
  }

  async remove(path: string): Promise<void> {
    try {
      this.binding.removeNetns(path)
    } catch (error) {
      throw systemError(error, `remove network namespace ${path}`, { path })
    }
  }

  /** Namespaces live on a file system of their own (nsfs), so a bound one shows by the device of its file. */
  async list(directory: string): Promise<string[]> {
    const { dev } = await stat('/proc/self/ns/net')
    const found: string[] = []
    for (const name of await this.names(directory)) {
      const path = join(directory, name)
      const status = await stat(path).catch(() => undefined)
      if (status?.dev === dev) found.push(path)
    }
    return found
  }

  /** The directory is there, as a rule: made only when it is missing, since asking first costs a journey of its own. */
  private async created(path: string): ReturnType<Binding['createNetns']> {
    const { binding } = this
    const away = () => binding.createNetns(path)
    const either = () => pace.make(() => binding.createNetnsSync(path), away)
    try {
      return await either()
    } catch (error) {
      switch (isNativeError(error) && Math.abs(error.errno)) {
        case constants.errno.ENOENT:
          await mkdir(dirname(path), { recursive: true, mode: 0o755 })
          return either()
        case constants.errno.EPERM: // perhaps only the calling thread may not
          return pace.away(away)
        default:
          throw error
      }
    }
  }

  transact(steps: Step[]): Promise<void> {
    return transact(this.binding, steps)
  }

  private opened(source: string | null, path: string | undefined): LinuxStack {
    let ns = -1
    try {
      ns = this.binding.openNetns(source)
      return new LinuxStack(this.binding, ns, this.binding.inode(ns), path)
    } catch (error) {
      if (ns >= 0) this.binding.close(ns)
      throw systemError(
        error,
        `open network namespace ${source ?? 'of this process'}`,
        { path: source },
        ABSENT,
      )
    }
  }

  private async isBound(path: string, inode: number): Promise<boolean> {
    const [own, there] = await Promise.all([stat('/proc/self/ns/net'), stat(path).catch(() => undefined)])
    return there?.dev === own.dev && there.ino === inode
  }

  private async names(directory: string): Promise<string[]> {
    try {
      return (await readdir(directory)).sort()
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
      throw systemError(error, `list network namespaces in ${directory}`, { directory })
    }
  }
}
