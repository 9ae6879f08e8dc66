/**
 * firewalld, where it runs on the host: it rejects what none of its zones accepts, so the bridges go into a zone of our own
 * (target ACCEPT: our table judges) and a policy lets others forward to it. It forgets about both when it is reloaded,
 * and tells so.
 */
import type { Logger } from '../base/log'
import { Dbus, DbusError, type Signal } from './dbus/bus'
import type { Value } from './dbus/message'

const NAME = 'org.fedoraproject.FirewallD1'
const PATH = '/org/fedoraproject/FirewallD1'
const CONFIG_PATH = `${PATH}/config`
const BUS = 'org.freedesktop.DBus'
const BUS_PATH = '/org/freedesktop/DBus'
/** Characters that firewalld allows in the name of a zone or policy. */
const LONGEST_NAME = 17
/** Milliseconds: firewalld loads all its rules anew. */
const RELOAD_TIMEOUT = 60_000

/** What firewalld answers when a thing is so already. */
const FINE = /ALREADY_ENABLED|ZONE_ALREADY_SET|NAME_CONFLICT|NOT_ENABLED|UNKNOWN_INTERFACE/

export class Firewalld {
  private bus: Dbus | undefined
  private links: string[] = []
  /** Those that we put into the zone. */
  private readonly placed = new Set<string>()
  private readonly zone: string
  private readonly policy: string
  private queue: Promise<void> = Promise.resolve()
  /** It runs, and our zone is there. */
  active = false
  /** It runs, maybe not for long enough to have our zone. */
  private present = false
  /** It did not do what it was last asked for. */
  private refused = false

  /**
   * `changed` is called after firewalld loaded its rules anew, with the zone in order again, and when it is gone or begins
   * to refuse: the rules of the host are to be looked at.
   */
  constructor(
    name: string,
    private readonly socket: string,
    private readonly log: Logger,
    private readonly changed: () => void,
  ) {
    this.zone = name.slice(0, LONGEST_NAME)
    this.policy = `${name.slice(0, LONGEST_NAME - 4)}-fwd`
  }

  /** Never throws: a host without firewalld, or without a bus, is the usual case. */
  async start(): Promise<void> {
    try {
      this.bus = await Dbus.connect(
        this.socket,
        signal => this.hear(signal),
        () => {
          if (!this.bus) return
          this.bus = undefined
          this.active = this.present = false
          this.changed()
        },
      )
      for (const rule of [
        `type='signal',interface='${NAME}',member='Reloaded'`,
        `type='signal',interface='${BUS}',member='NameOwnerChanged',arg0='${NAME}'`,
      ])
        await this.bus.call(BUS, BUS_PATH, BUS, 'AddMatch', 's', [rule])
      const [runs] = await this.bus.call(BUS, BUS_PATH, BUS, 'NameHasOwner', 's', [NAME])
      this.present = runs === true
      if (this.present) await this.inTurn(() => this.arrange())
    } catch (error) {
      this.log.debug('firewalld is not spoken with', { error })
    }
  }

  /** The bridges that there are now. */
  async sync(links: string[]): Promise<void> {
    this.links = links
    if (this.active) await this.inTurn(() => this.place())
  }

  /**
   * A drop in this table is meant for others. While firewalld starts, reloads and ends it drops everything for a moment
   * (`firewalld_policy_drop`); that is soon over, and no news.
   */
  minds(table: string): boolean {
    return /^firewalld(_policy_drop)?$/.test(table) && this.present && !this.refused
  }

  stop(): void {
    const { bus } = this
    this.bus = undefined
    bus?.close()
    this.active = this.present = false
  }

  private hear({ interface: face, member, body }: Signal): void {
    if (face === NAME && member === 'Reloaded') void this.again()
    if (member !== 'NameOwnerChanged' || body[0] !== NAME) return
    this.present = body[2] !== ''
    if (this.present) return void this.again()
    this.active = false
    this.changed()
  }

  private async again(): Promise<void> {
    this.placed.clear()
    await this.inTurn(() => this.arrange())
    this.changed()
  }

  /** One after the other, and a failure is told, not thrown: networks work without firewalld's consent to everything. */
  private inTurn(body: () => Promise<void>): Promise<void> {
    this.queue = this.queue.then(async () => {
      try {
        await body()
        this.refused = false
      } catch (error) {
        this.log.warn('firewalld did not do what it was asked for', { error })
        const before = this.refused
        this.refused = true
        if (!before && this.present) this.changed()
      }
    })
    return this.queue
  }

  /** It may have ended since this was put off, or end meanwhile. */
  private async arrange(): Promise<void> {
    if (!this.present) return
    const [zones] = await this.call(`${NAME}.zone`, 'getZones')
    if (!(zones as string[]).includes(this.zone)) {
      const described = (kind: string) => text(`${kind} of container networks`)
      await this.config('addZone2', this.zone, [
        ['target', text('ACCEPT')],
        ['short', text(this.zone)],
        ['description', described('the bridges')],
      ])
      try {
        await this.config('addPolicy', this.policy, [
          ['target', text('ACCEPT')],
          ['ingress_zones', list('ANY')],
          ['egress_zones', list(this.zone)],
          ['description', described('what is forwarded to the bridges')],
        ])
      } catch (error) {
        // Before 0.9 there are no policies, and none is needed.
        if (!/UnknownMethod/.test((error as Error).message)) throw error
      }
      // What is permanent takes effect with a reload; its signal brings us here again, with the zone there.
      await this.call(NAME, 'reload', '', [], RELOAD_TIMEOUT)
    }
    this.active = this.present
    if (this.active) await this.place()
  }

  private async place(): Promise<void> {
    const { zone } = this
    for (const link of [...this.placed])
      if (!this.links.includes(link)) {
        await this.tolerant(() => this.call(`${NAME}.zone`, 'removeInterface', 'ss', [zone, link]))
        this.placed.delete(link)
      }
    for (const link of this.links)
      if (!this.placed.has(link)) {
        // Whichever zone it was in before (the default zone, by NetworkManager).
        await this.tolerant(() => this.call(`${NAME}.zone`, 'changeZoneOfInterface', 'ss', [zone, link]))
        this.placed.add(link)
      }
  }

  private config(member: string, name: string, settings: [string, Value][]): Promise<unknown> {
    return this.tolerant(() =>
      this.call(`${NAME}.config`, member, 'sa{sv}', [name, new Map(settings)], undefined, CONFIG_PATH),
    )
  }

  private async tolerant(body: () => Promise<unknown>): Promise<void> {
    try {
      await body()
    } catch (error) {
      if (!(error instanceof DbusError) || !FINE.test(error.message)) throw error
    }
  }

  private call(
    face: string,
    member: string,
    signature = '',
    values: Value[] = [],
    timeout?: number,
    path = PATH,
  ): Promise<Value[]> {
    if (!this.bus) throw new Error('the bus is gone')
    return this.bus.call(NAME, path, face, member, signature, values, timeout)
  }
}

const text = (value: string): Value => ({ signature: 's', value })
const list = (...values: string[]): Value => ({ signature: 'as', value: values })

/** Where the system bus listens; undefined where an address of another kind than a path was set. */
export function systemBus(): string | undefined {
  const address = process.env.DBUS_SYSTEM_BUS_ADDRESS ?? 'unix:path=/run/dbus/system_bus_socket'
  return /^unix:path=([^,;]+)/.exec(address)?.[1]
}
