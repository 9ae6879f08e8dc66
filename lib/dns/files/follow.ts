import { type FSWatcher, realpathSync, watch } from 'node:fs'
import { basename, dirname } from 'node:path'
import { parseResolvConf } from './resolvconf'
import { readText } from './writer'

/** What systemd-resolved's stub stands for: the servers that it asks itself. */
const SYSTEMD = '/run/systemd/resolve/resolv.conf'
const SYSTEMD_STUB = '127.0.0.53'
/** Milliseconds: a rewrite is several events. */
const SETTLE = 50

/** The host's resolv.conf, read once for all sandboxes and read again when it changes. */
export interface HostResolvConf {
  readonly text: string
  /** Calls when the text is another one. Returns what stops that; the last to stop ends the watch. */
  follow(listener: () => void): () => void
}

const followed = new Map<string, Followed>()

/** One per path and process. */
export function hostResolvConf(path: string, systemd = SYSTEMD): HostResolvConf {
  const key = `${path}\n${systemd}`
  let file = followed.get(key)
  if (!file) {
    file = new Followed(path, systemd, () => followed.delete(key))
    followed.set(key, file)
  }
  return file
}

class Followed implements HostResolvConf {
  readonly #listeners = new Set<() => void>()
  #watchers: FSWatcher[] = []
  #timer: NodeJS.Timeout | undefined
  #text: string | undefined

  constructor(
    readonly path: string,
    readonly systemd: string,
    readonly ended: () => void,
  ) {}

  get text(): string {
    // Unwatched, what was read may be old.
    if (this.#listeners.size === 0 || this.#text === undefined) this.#text = this.#read()
    return this.#text
  }

  follow(listener: () => void): () => void {
    const own = () => listener()
    if (this.#listeners.size === 0) {
      this.#text = this.#read()
      this.#watch()
    }
    this.#listeners.add(own)
    return () => {
      if (!this.#listeners.delete(own) || this.#listeners.size > 0) return
      clearTimeout(this.#timer)
      this.#unwatch()
      this.ended()
    }
  }

  #read(): string {
    const text = readText(this.path) ?? ''
    const { servers } = parseResolvConf(text)
    if (servers.length !== 1 || servers[0] !== SYSTEMD_STUB) return text
    return readText(this.systemd) ?? text
  }

  /** Directories are watched, not files: a file replaced by rename would be lost. Links are followed, theirs as well. */
  #watch(): void {
    const places = new Map<string, Set<string>>()
    for (const path of [this.path, real(this.path), this.systemd]) {
      const directory = dirname(path)
      const names = places.get(directory) ?? new Set()
      places.set(directory, names.add(basename(path)))
    }
    for (const [directory, names] of places) {
      try {
        const watcher = watch(directory, { persistent: false }, (_, name) => {
          if (name === null || names.has(name)) this.#soon()
        })
        watcher.on('error', () => watcher.close())
        this.#watchers.push(watcher)
      } catch {
        // No such directory: nothing to hear of there.
      }
    }
  }

  #unwatch(): void {
    for (const watcher of this.#watchers) watcher.close()
    this.#watchers = []
  }

  #soon(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined
      const text = this.#read()
      // The link may lead elsewhere now.
      this.#unwatch()
      this.#watch()
      if (text === this.#text) return
      this.#text = text
      for (const listener of [...this.#listeners]) listener()
    }, SETTLE).unref()
  }
}

function real(path: string): string {
  try {
    return realpathSync(path)
  } catch {
    return path
  }
}
