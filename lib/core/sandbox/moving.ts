import { join as joinPath } from 'node:path'
import { atomically, type Undo } from '../../base/undo'
import type { SandboxResolver } from '../../dns/contract'
import type { Endpoint } from '../../endpoint'
import type { Stack } from '../../kernel/kernel'
import { applyLeniently } from '../context'
import type { JoinRecord } from '../records'
import type { Interfaces } from './interfaces'
import type { Elected, Interior } from './interior'
import type { SandboxNames } from './names'
import type { SandboxServices } from './services'

/** Where a sandbox lived before `setKey`. */
interface Abode {
  stack?: Stack
  key?: string
  inode?: number
  resolver?: SandboxResolver
  elected: Elected
  ipv6Default?: string
  hadLinks: boolean
  services: SandboxServices['applied']
  joins: Map<Endpoint, JoinRecord>
}

/** A sandbox that gets another namespace (`setKey`): everything joined appears there, or all is as before. */
export class Moving {
  readonly #in: Interior
  readonly #names: SandboxNames
  readonly #services: SandboxServices
  readonly #interfaces: Interfaces

  constructor(interior: Interior, names: SandboxNames, services: SandboxServices, interfaces: Interfaces) {
    this.#in = interior
    this.#names = names
    this.#services = services
    this.#interfaces = interfaces
  }

  /** Binds what is at `source` and moves there. False: the sandbox is there already. */
  async to(source: string): Promise<boolean> {
    return atomically(async undo => {
      const { kernel } = this.#in.context
      const old: Abode = {
        stack: this.#in.stack,
        key: this.#in.key,
        inode: this.#in.record.inode,
        resolver: this.#names.resolver,
        elected: this.#in.elected,
        ipv6Default: this.#in.ipv6Default,
        hadLinks: this.#in.hadLinks,
        services: this.#services.applied,
        joins: new Map(
          [...this.#in.endpoints.values()].map(endpoint => [endpoint, endpoint.record.join as JoinRecord]),
        ),
      }
      const key = joinPath(
        this.#in.context.runDir,
        'netns',
        `${this.#in.id.slice(0, 12)}${old.key?.endsWith('-b') ? '-c' : old.key ? '-b' : ''}`,
      )
      undo.push('unbind the key', () => kernel.remove(key))
      const stack = await kernel.bind(source, key)
      if (stack.inode === old.stack?.inode) {
        stack.close()
        await kernel.remove(key)
        return false // it is there already
      }
      undo.push('old namespace', () => this.#moveBack(old, stack))
      await this.#moveTo(stack, key, old, undo)
      await this.#in.save()
      await this.#leaveBehind(old)
      return true
    })
  }

  /** Plumbs every joined endpoint in another namespace. */
  async #moveTo(stack: Stack, key: string, old: Abode, undo: Undo): Promise<void> {
    this.#in.stack = stack
    this.#names.resolver = undefined
    this.#in.ipv6Default = undefined
    this.#in.elected = {}
    this.#services.applied = undefined
    this.#in.hadLinks = true // whoever made it may have put some in
    Object.assign(this.#in.record, { key, inode: stack.inode })
    // A runtime may set its loopback up only later; the resolver needs it now.
    if (!(await stack.link('lo'))?.up) {
      undo.push('loopback', () => stack.apply([{ op: 'setLink', link: 'lo', up: false }]))
      await stack.apply([{ op: 'setLink', link: 'lo', up: true }])
    }
    const moving = old.stack !== undefined
    // None of them is there yet, so none can be elected.
    for (const [endpoint, join] of old.joins) endpoint.record.join = { ...join, attachment: undefined }
    for (const endpoint of old.joins.keys()) await this.#interfaces.plumb(endpoint, undo, moving)
    if (moving) await this.#names.refresh()
    else for (const endpoint of old.joins.keys()) this.#in.context.services?.joined(endpoint)
  }

  /** After a failure: the new namespace is left as it was, the old one is home again. */
  async #moveBack(old: Abode, stack: Stack): Promise<void> {
    if (this.#names.resolver !== old.resolver) await this.#names.resolver?.close()
    stack.close()
    this.#in.stack = old.stack
    this.#names.resolver = old.resolver
    this.#in.elected = old.elected
    this.#in.ipv6Default = old.ipv6Default
    this.#in.hadLinks = old.hadLinks
    this.#services.applied = old.services
    Object.assign(this.#in.record, { key: old.key, inode: old.inode })
    for (const [endpoint, join] of old.joins) {
      endpoint.record.join = join
      await endpoint.save()
    }
    this.#names.writeFiles()
  }

  /** The old namespace, after everything has moved out of it. */
  async #leaveBehind(old: Abode): Promise<void> {
    const { kernel, host, log, reaper, wantedLinks } = this.#in.context
    if (!old.stack || !old.key) return
    try {
      await old.resolver?.close({ keepRules: true })
      for (const [endpoint, { attachment }] of old.joins) {
        if (!attachment) continue
        if (attachment.interface?.source) wantedLinks.delete(attachment.interface.source)
        const plan = await endpoint.network.implementation.leave(
          endpoint.network.forDriver,
          endpoint.spec,
          attachment,
        )
        await applyLeniently(host, plan.changes ?? [])
      }
      reaper.forget(old.stack)
      old.stack.close()
      await kernel.remove(old.key)
    } catch (error) {
      log.warn(`the old namespace of ${this.#in.containerId} could not be cleared`, { error })
    }
  }
}
