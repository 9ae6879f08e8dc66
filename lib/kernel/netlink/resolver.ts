import type { LinkRef, Stack } from '../kernel'

interface Born {
  name: string
  index?: number
}

/** What an encoder must ask for, because the message holds a number where the change holds a name or an object. */
export interface Resolver {
  /** The index of a link of the stack that the change is for. */
  link(ref: LinkRef): number
  /**
   * The index to ask for when a link is made; 0: the kernel's choice. `link` is a LinkSpec or its peer. The kernel heeds
   * the index of a veth's peer only beside one of the veth itself (drivers/net/veth.c), so that one needs to know of it.
   */
  born(link: Born, netns: Stack | undefined, peer?: Born): number
  /** From now on the link that was `ref` is `name`. */
  renamed(ref: LinkRef, name: string): void
  /** A descriptor of the namespace. */
  netns(stack: Stack): number
}
