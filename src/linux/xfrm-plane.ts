/**
 * The data plane of the kernel: SAs and policies of Linux XFRM, by netlink. No packet passes through this
 * process.
 *
 * Operations of one `apply` go to the kernel in as few sends as possible. To keep the promise "later ones are
 * not tried", what the kernel did behind a refused operation of the same send is undone before `apply` throws;
 * a removal, which cannot be undone, never shares a send with an installation before it.
 */

import { readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { errorLine, IpprivError } from '#base/errors'
import { type ReqId, SPI_MIN } from '#base/ids'
import type { Duration } from '#base/time'
import { createDummy, deleteDummy, findLink } from '#linux/interfaces'
import type { NetlinkError, NetlinkRequest } from '#linux/netlink'
import { isErrno, Netlink } from '#linux/netlink'
import { ABSENT, type Step, XfrmLedger } from '#linux/xfrm-ledger'
import {
  policyRemoveRequest,
  policySpecOf,
  saCountersOf,
  saKeyOf,
  saMoveRequest,
  saName,
  saRemoveRequest,
} from '#linux/xfrm-messages'
import { probeKernelEsp } from '#linux/xfrm-probe'
import { HASH_THRESHOLD, readHashThreshold, setHashThreshold } from '#linux/xfrm-threshold'
import type {
  DataPlane,
  Inventory,
  PlaneOperation,
  PolicySpec,
  SaCounters,
  SaEnds,
  SaKey,
} from '#telescope/plane'
import { INNER_MTU, isOurPriority, isOurReqId, PRIORITY } from '#telescope/plane'
import type { NetlinkMessage } from '#wire/netlink/message'
import type { HashThreshold } from '#wire/netlink/xfrm'
import { XFRM_MSG } from '#wire/netlink/xfrm'
import { decodePolicy, encodePolicyDump } from '#wire/netlink/xfrm-policy'
import type { XfrmSa } from '#wire/netlink/xfrm-sa'
import { decodeExpire, decodeSa, encodeSaDump, encodeSaId } from '#wire/netlink/xfrm-sa'

export interface XfrmPlaneOptions {
  /** Name of the dummy device to create: it holds private addresses and private routes. */
  readonly device: string
  /**
   * Keep the `block` policies a killed predecessor left until the first `apply` has succeeded, then remove
   * those it did not install again: a restarted client is at no moment without its guard. Default: false.
   */
  readonly keepGuard?: boolean
  /**
   * Keep all that a killed predecessor left, as if this plane had installed it (`inventory`), so that what it carried
   * goes on. Not what a client left: a guard is nothing to begin with. Default: false.
   */
  readonly adopt?: boolean
}

/** XFRMNLGRP_EXPIRE. */
const GROUP_EXPIRE = 2
/** Between two sockets of one kernel, in ms. */
const NEWS_PATIENCE: Duration = 200

export class XfrmPlane implements DataPlane {
  readonly kind = 'xfrm'
  readonly device: string
  readonly #keepGuard: boolean
  readonly #adopt: boolean
  #xfrm: Netlink | undefined
  /** What the kernel says unasked: a socket of its own, since that one answers nobody. */
  #news: Netlink | undefined
  #route: Netlink | undefined
  #thresholdBefore: HashThreshold | undefined
  #turn: Promise<unknown> = Promise.resolve()
  readonly #ledger = new XfrmLedger()
  #found: Inventory = { policies: [], sas: [] }
  #failed = false
  #listener: ((error: Error) => void) | undefined
  #heard: ((sa: SaKey) => void) | undefined

  constructor(options: XfrmPlaneOptions) {
    this.device = options.device
    this.#keepGuard = options.keepGuard ?? false
    this.#adopt = options.adopt ?? false
  }

  /**
   * Removes what a killed daemon left of this plane, for one that starts on the other: SAs, policies and the dummy
   * device would stand in its way. Nothing to do where the kernel has no XFRM.
   */
  static async clear(device: string): Promise<void> {
    const plane = new XfrmPlane({ device })
    try {
      plane.#route = new Netlink('route')
      await deleteDummy(plane.#route, device)
      plane.#xfrm = new Netlink('xfrm')
      await plane.#sweep(false)
    } catch (error) {
      if (!isErrno(error, 'EPROTONOSUPPORT')) throw error
    } finally {
      plane.#release()
    }
  }

  async open(): Promise<void> {
    const { ciphers, reason } = await probeKernelEsp()
    if (!ciphers.includes('aes-256-gcm-16'))
      throw new IpprivError('IPP_PLANE_UNAVAILABLE', `xfrm: ${reason ?? 'no AES-GCM'}`)
    this.#xfrm = new Netlink('xfrm')
    this.#xfrm.onFailure((error) => this.#fail(error))
    this.#news = new Netlink('xfrm')
    this.#news.onGroup(GROUP_EXPIRE, (message) => this.#takeNews(message))
    this.#route = new Netlink('route')
    try {
      const adopted = this.#adopt && (await this.#takeOver())
      if (!adopted) await this.#sweep(this.#keepGuard)
      this.#thresholdBefore = await readHashThreshold(this.#xfrm)
      await setHashThreshold(this.#xfrm, HASH_THRESHOLD)
      if (!adopted || !(await findLink(this.#route, this.device)))
        await createDummy(this.#route, this.device, INNER_MTU)
    } catch (error) {
      this.#release()
      throw error
    }
  }

  /** What `open` found and kept; nothing unless it was to adopt. */
  get inventory(): Inventory {
    return this.#found
  }

  apply(operations: readonly PlaneOperation[]): Promise<void> {
    return this.#exclusive(async () => {
      for (let at = 0; at < operations.length; ) {
        const operation = operations[at]!
        if (operation.kind === 'sa.move') {
          await this.#move(operation.sa, operation.to)
          at++
        } else at += await this.#applyRun(operations, at)
      }
      const unclaimed = this.#ledger.strikeUnclaimed()
      if (unclaimed.length > 0) await this.#remove(unclaimed)
    })
  }

  counters(): Promise<readonly SaCounters[]> {
    return this.#exclusive(async () => {
      const sas = await this.#listSas()
      await this.#missLost(sas.map(saKeyOf))
      return sas.map(saCountersOf)
    })
  }

  async drops(): Promise<Readonly<Record<string, number>>> {
    let text: string
    try {
      text = await readFile('/proc/net/xfrm_stat', 'utf8')
    } catch (error) {
      // The kernel was built without CONFIG_XFRM_STATISTICS: it does not count.
      if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return {}
      throw error
    }
    const rows = text.trim().split('\n')
    return Object.fromEntries(rows.map((row) => row.split(/\s+/)).map(([name, n]) => [name!, Number(n)]))
  }

  onHeard(listener: (sa: SaKey) => void): void {
    this.#heard = listener
  }

  onFailure(listener: (error: Error) => void): void {
    this.#listener = listener
  }

  async close(): Promise<void> {
    await this.#exclusive(async () => {
      if (!this.#xfrm || !this.#route) return
      try {
        await this.#sweep(false)
        if (this.#thresholdBefore) await setHashThreshold(this.#xfrm, this.#thresholdBefore)
        await deleteDummy(this.#route, this.device)
      } finally {
        this.#release()
      }
    })
  }

  /** Sends the longest run of operations that may share a send. Answers how many they were. */
  async #applyRun(operations: readonly PlaneOperation[], from: number): Promise<number> {
    const steps: Step[] = []
    try {
      for (let at = from; at < operations.length; at++) {
        const operation = operations[at]!
        if (operation.kind === 'sa.move') break
        if (isRemoval(operation) && steps.some(({ installs }) => installs)) break
        steps.push(this.#ledger.enter(operation))
      }
    } catch (error) {
      // An operation that cannot be expressed: those before it are still due, so the error comes after them.
      await this.#perform(steps)
      throw error
    }
    await this.#perform(steps)
    return steps.length
  }

  /**
   * The kernel changes neither the ends of an SA nor whether it is encapsulated (UPDSA refuses; MIGRATE cannot take
   * encapsulation away). So it is read, removed, and installed again with all it was.
   */
  async #move(sa: SaKey, to: SaEnds): Promise<void> {
    const name = saName(sa)
    if (!this.#ledger.hasSa(sa)) return
    const moved = { ...to, spi: sa.spi }
    if (saName(moved) !== name && this.#ledger.hasSa(moved))
      throw new IpprivError('IPP_PLANE_OPERATION', `move ${name}: ${saName(moved)} exists`)
    const kernel = this.#kernel()
    try {
      const request = { name: `GETSA ${name}`, type: XFRM_MSG.getSa, payload: encodeSaId(sa) }
      const { payload } = await kernel.get(request)
      const found = decodeSa(payload)
      if (found === undefined) throw new IpprivError('IPP_PLANE_OPERATION', `${request.name}: not understood`)
      const install = saMoveRequest(found, to)
      payload.fill(0)
      this.#ledger.deleteSa(sa)
      const [, refused] = await kernel.batch([saRemoveRequest(sa), install])
      install.payload.fill(0)
      if (refused) throw refused
      this.#ledger.addSa(moved)
    } catch (error) {
      throw operationError(error)
    }
  }

  async #perform(steps: readonly Step[]): Promise<void> {
    if (steps.length === 0) return
    let results: readonly (NetlinkError | undefined)[]
    try {
      results = await this.#kernel().batch(steps.map(({ request }) => request))
    } catch (error) {
      // The socket failed with the outcome unknown: put everything back to where it was.
      for (const step of steps.toReversed()) step.revert()
      await this.#undo(steps)
      throw operationError(error)
    } finally {
      for (const { request } of steps) if (request.type === XFRM_MSG.newSa) request.payload.fill(0)
    }
    const refused = (i: number): boolean => !!results[i] && !steps[i]!.tolerated.includes(results[i].errno)
    const at = steps.findIndex((_, i) => refused(i))
    if (at < 0) return
    for (const step of steps.slice(at).toReversed()) step.revert()
    await this.#undo(steps.filter((_, i) => i > at && !results[i]))
    throw operationError(results[at])
  }

  async #undo(steps: readonly Step[]): Promise<void> {
    try {
      await this.#remove(steps.toReversed().flatMap(({ undo }) => undo ?? []))
    } catch (error) {
      // The kernel holds something the ledger does not: nobody may rely on it any more.
      this.#fail(error instanceof Error ? error : new Error(String(error)))
    }
  }

  /**
   * Removes whatever is in our ranges. Blocks go last: while anything of ours is there, what it guards is
   * guarded.
   */
  async #sweep(keepBlocks: boolean): Promise<void> {
    const policies = await this.#listPolicies()
    const blocks = policies.filter(({ action }) => action === 'block')
    const others = policies.filter(({ action }) => action !== 'block')
    const sas = await this.#listSas()
    const removal = ({ direction, selector }: PolicySpec): NetlinkRequest =>
      policyRemoveRequest(direction, selector)
    await this.#remove([
      ...others.map(removal),
      ...sas.map((sa) => saRemoveRequest(saKeyOf(sa))),
      ...(keepBlocks ? [] : blocks.map(removal)),
    ])
    this.#ledger.clear()
    if (keepBlocks) this.#ledger.inherit(blocks)
  }

  /** @returns whether there was anything of a node's */
  async #takeOver(): Promise<boolean> {
    const policies = await this.#listPolicies()
    if (policies.length === 0 || policies.some(({ priority }) => priority === PRIORITY.guard)) return false
    const sas = (await this.#listSas()).map((sa) => ({ ...saKeyOf(sa), reqid: sa.reqid as ReqId }))
    this.#ledger.adopt(policies, sas)
    this.#found = { policies, sas }
    return true
  }

  async #remove(requests: readonly NetlinkRequest[]): Promise<void> {
    const errors = await this.#kernel().batch(requests)
    const refused = errors.find((error) => error && !isErrno(error, ...ABSENT))
    if (refused) throw refused
  }

  async #listSas(): Promise<readonly XfrmSa[]> {
    const request = { name: 'GETSA', type: XFRM_MSG.getSa, payload: encodeSaDump() }
    const sas: XfrmSa[] = []
    for (const { type, payload } of await this.#kernel().dump(request)) {
      const sa = type === XFRM_MSG.newSa ? decodeSa(payload) : undefined
      // Without an SPI it is the kernel's own note that an SA was asked for; it fades by itself.
      if (sa && isOurReqId(sa.reqid) && sa.spi >= SPI_MIN) sas.push(sa)
      // The kernel shows the keys to whoever may ask; they are not wanted here.
      payload.fill(0)
    }
    return sas
  }

  /** What the kernel has not any more, and said no word about: another program flushed the SAD. */
  async #missLost(present: readonly SaKey[]): Promise<void> {
    if (this.#ledger.lostSas(present).length === 0) return
    // The news that one expired comes on a socket of its own, and may come later.
    await sleep(NEWS_PATIENCE)
    for (const name of this.#ledger.lostSas(present))
      this.#fail(new Error(`another program removed SAs of ours, as ${name}`))
  }

  async #listPolicies(): Promise<readonly PolicySpec[]> {
    const request = { name: 'GETPOLICY', type: XFRM_MSG.getPolicy, payload: encodePolicyDump() }
    const policies: PolicySpec[] = []
    for (const { type, payload } of await this.#kernel().dump(request)) {
      const policy = type === XFRM_MSG.newPolicy ? decodePolicy(payload) : undefined
      const spec = policy && isOurPriority(policy.priority) ? policySpecOf(policy) : undefined
      if (spec) policies.push(spec)
    }
    return policies
  }

  /** The soft limit of an SA that announces its packets, or the end of one that nobody renewed: its packets are dropped. */
  #takeNews({ type, payload }: NetlinkMessage): void {
    const expiry = type === XFRM_MSG.expire ? decodeExpire(payload) : undefined
    if (expiry === undefined || !isOurReqId(expiry.sa.reqid)) return
    const key = saKeyOf(expiry.sa)
    if (expiry.isHard) this.#ledger.deleteSa(key)
    else if (this.#ledger.hasSa(key)) this.#heard?.(key)
  }

  #kernel(): Netlink {
    if (!this.#xfrm) throw new IpprivError('IPP_PLANE_OPERATION', 'the plane is not open')
    return this.#xfrm
  }

  #fail(cause: Error): void {
    if (this.#failed) return
    this.#failed = true
    this.#listener?.(new IpprivError('IPP_PLANE_DEAD', `xfrm: ${cause.message}`, { cause }))
  }

  #release(): void {
    this.#xfrm?.close()
    this.#route?.close()
    this.#news?.close()
    this.#news = undefined
    this.#xfrm = undefined
    this.#route = undefined
  }

  #exclusive<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(work)
    this.#turn = turn.catch(() => undefined)
    return turn
  }
}

const isRemoval = ({ kind }: PlaneOperation): boolean => kind === 'sa.remove' || kind === 'policy.remove'

function operationError(error: unknown): IpprivError {
  if (error instanceof IpprivError && error.code === 'IPP_HOST_PRIVILEGE') return error
  const where = error instanceof IpprivError ? error.where : errorLine(error)
  return new IpprivError('IPP_PLANE_OPERATION', where, { cause: error })
}
