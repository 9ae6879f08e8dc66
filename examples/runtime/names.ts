/** Names for containers that were given none. */
const MANNERS = [
  'brisk',
  'calm',
  'deft',
  'eager',
  'fond',
  'gentle',
  'keen',
  'lucid',
  'merry',
  'quiet',
  'sound',
  'witty',
]
const BEASTS = [
  'badger',
  'crane',
  'dipper',
  'egret',
  'finch',
  'heron',
  'ibis',
  'kite',
  'marten',
  'otter',
  'plover',
  'wren',
]

const pick = (list: readonly string[]) => list[Math.floor(Math.random() * list.length)] as string

export function randomName(taken: (name: string) => boolean): string {
  for (let attempt = 0; ; attempt++) {
    const name = `${pick(MANNERS)}_${pick(BEASTS)}${attempt > 3 ? Math.floor(Math.random() * 1e6) : ''}`
    if (!taken(name)) return name
  }
}
