import { randomInt } from 'node:crypto'
import type { LinkRef, Stack } from './kernel'
import type { Resolver } from './netlink/resolver'

interface Spec {
  name: string
  index?: number
}

/** A link that the batch makes or renames. */
interface Born {
  inode: number
  name: string
  /** 0: not chosen. */
  index: number
  /** The LinkSpec or peer it came from. */
  of: object
}

/** The kernel counts up from 1 and skips what is taken, so random numbers far above do not get into its way. */
const LOWEST = 0x10000
const HIGHEST = 0x7fffffff

/**
 * Numbers for names, while the changes of a batch are encoded in order. A name means the link that an earlier change
 * of the batch gave it to, or else what the kernel answered when it was asked. Where neither is known yet, the encoding
 * is a trial: `incomplete` tells to look `missing` up and to encode again.
 */
export class Names implements Resolver {
  /** In order of appearance; few, so the search from the end needs no map. */
  private news: Born[] = []
  /** Indexes that were chosen here, for links whose maker left it open but which a later change needs. */
  private readonly chosen = new Map<object, number>()
  /** What the kernel answered, by `inode/name`; 0: there is no such link. */
  private readonly found = new Map<string, number>()
  private stack: Stack | undefined
  readonly missing = new Map<string, { stack: Stack; name: string }>()
  incomplete = false
  /** The name that made the present step impossible: the kernel knows no such link. */
  absent: string | undefined

  /** `remembered`: the index of a name that was looked up before, if it still is that link's; else 0. */
  constructor(
    private readonly descriptor: (stack: Stack) => number,
    private readonly remembered: (stack: Stack, name: string) => number,
  ) {}

  /** A new trial, from the first step on. */
  restart(): void {
    this.news.length = 0
    this.missing.clear()
    this.incomplete = false
    this.absent = undefined
  }

  enter(stack: Stack): void {
    this.stack = stack
  }

  /** Forgets the answers "no such link": after some steps were carried out they may be wrong. */
  forgetAbsent(): void {
    for (const [key, index] of this.found) if (index === 0) this.found.delete(key)
  }

  answer(stack: Stack, name: string, index: number): void {
    this.found.set(`${stack.inode}/${name}`, index)
  }

  link(ref: LinkRef): number {
    if (typeof ref === 'number') return ref
    const stack = this.here()
    const born = this.search(stack.inode, ref)
    if (born) {
      if (born.index === 0) {
        born.index = this.choose(born.of)
        this.incomplete = true // the message that makes it has been written without
      }
      return born.index
    }
    const key = `${stack.inode}/${ref}`
    const found = this.found.get(key) ?? this.recall(stack, ref, key)
    if (found === undefined) {
      this.missing.set(key, { stack, name: ref })
      this.incomplete = true
    } else if (found === 0) this.absent ??= ref
    return found ?? 0
  }

  private recall(stack: Stack, name: string, key: string): number | undefined {
    const index = this.remembered(stack, name)
    if (index === 0) return undefined
    this.found.set(key, index)
    return index
  }

  born(link: Spec, netns: Stack | undefined, peer?: Spec): number {
    const index = this.indexOf(link) || (peer && this.indexOf(peer) ? this.choose(link) : 0)
    this.news.push({ inode: (netns ?? this.here()).inode, name: link.name, index, of: link })
    return index
  }

  renamed(ref: LinkRef, name: string): void {
    this.news.push({ inode: this.here().inode, name, index: this.link(ref), of: {} })
  }

  netns(stack: Stack): number {
    return this.descriptor(stack)
  }

  private indexOf(link: Spec): number {
    return link.index ?? this.chosen.get(link) ?? 0
  }

  private choose(link: object): number {
    const index = randomInt(LOWEST, HIGHEST)
    this.chosen.set(link, index)
    return index
  }

  private search(inode: number, name: string): Born | undefined {
    for (let i = this.news.length - 1; i >= 0; i--) {
      const born = this.news[i]
      if (born?.name === name && born.inode === inode) return born
    }
    return undefined
  }

  private here(): Stack {
    if (!this.stack) throw new Error('no stack was entered')
    return this.stack
  }
}
