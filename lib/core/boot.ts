import { readFileSync } from 'node:fs'

let boot: string | undefined

/** Differs after every start of the machine. */
export function bootId(): string {
  boot ??= readBootId()
  return boot
}

function readBootId(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
  } catch {
    return ''
  }
}

/** A lasting id of this machine, the seed of its unique local IPv6 prefix. */
export function machineId(): string | undefined {
  for (const path of ['/etc/machine-id', '/var/lib/dbus/machine-id']) {
    try {
      return readFileSync(path, 'utf8').trim() || undefined
    } catch {
      // the next one
    }
  }
  return undefined
}
