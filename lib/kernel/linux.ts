import { readdir, stat } from 'node:fs/promises'
import { constants } from 'node:os'
import { dirname, join } from 'node:path'
import type { ErrorCode } from '../base/errors'
import { makeFolder } from '../base/folder'
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

  async create(path?: string): Promise<Stack> {
    try {
      const { ns, inode, route } = await (path === undefined
        ? pace.away(() => this.binding.createNetns(null))
        : this.created(path))
      return new LinuxStack(this.binding, ns, inode, path, route)
    } catch (error) {
      throw systemError(error, `create network namespace ${path ?? 'for stock'}`, { path }, TAKEN)
    }
  }

  async bind(source: string | Stack, path: string): Promise<Stack> {
    if (typeof source !== 'string') return this.bindStock(source as LinuxStack, path)
    const stack = this.opened(source, path)
    try {
      if (await this.isBound(path, stack.inode)) return stack
      makeFolder(dirname(path), 0o755)
      this.binding.removeNetns(path)
      this.binding.bindNetns(stack.descriptor, path)
      return stack
    } catch (error) {
      stack.close()
      throw systemError(error, `bind network namespace ${source} to ${path}`, { source, path }, TAKEN)
    }
  }

  private async bindStock(stack: LinuxStack, path: string): Promise<Stack> {
    const bind = () => this.binding.bindNetns(stack.descriptor, path)
    try {
      await inDirectory(path, bind)
      stack.bound(path)
      return stack
    } catch (error) {
      throw systemError(error, `bind network namespace of stock to ${path}`, { path }, TAKEN)
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

  private created(path: string): ReturnType<Binding['createNetns']> {
    const away = () => this.binding.createNetns(path)
    return inDirectory(path, () =>
      pace
        .make(() => this.binding.createNetnsSync(path), away)
        .catch((error: unknown) => {
          if (!hasErrno(error, constants.errno.EPERM)) throw error
          return pace.away(away) // perhaps only the calling thread may not
        }),
    )
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

const hasErrno = (error: unknown, errno: number): boolean =>
  isNativeError(error) && Math.abs(error.errno) === errno

/** The directory of `path` is there, as a rule: made only when it is missing, since asking first costs a journey of its own. */
async function inDirectory<T>(path: string, act: () => T | Promise<T>): Promise<T> {
  try {
    return await act()
  } catch (error) {
    if (!hasErrno(error, constants.errno.ENOENT)) throw error
    makeFolder(dirname(path), 0o755)
    return act()
  }
}
