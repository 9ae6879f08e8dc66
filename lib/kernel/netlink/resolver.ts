import type { LinkRef, Stack } from '../kernel'

/** What an encoder must ask for, because the message holds a number where the change holds a name or an object. */
export interface Resolver {
  /** The index of a link of the stack that the change is for. */
  link(ref: LinkRef): number
  /** The index to ask for when a link is made; 0: the kernel's choice. `link` is a LinkSpec or its peer. */
  born(link: { name: string; index?: number }, netns: Stack | undefined): number
  /** From now on the link that was `ref` is `name`. */
  renamed(ref: LinkRef, name: string): void
  /** A descriptor of the namespace. */
  netns(stack: Stack): number
}
