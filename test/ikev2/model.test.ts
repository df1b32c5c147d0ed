/**
 * Random sequences of legal and illegal acts on a client and a node, against a small model: an adversary holds every
 * datagram, and decides which arrive, when, in what order, how often and how changed, while both sides open, rekey
 * and close at will.
 *
 *     client engine --> [ in flight: deliver | repeat | lose | change | replay | reflect ] --> node engine
 *
 * What must hold after every act is in `adversary.ts`, and what must have come of it all in `settle`.
 */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import fc from 'fast-check'
import type { IkeSaId } from '#base/ids'
import { SECOND } from '#base/time'
import { decodeHeader } from '#ikev2/message/header'
import { unframe } from '#ikev2/nat'
import { EXCHANGE } from '#ikev2/numbers'
import { type IkeState, type IkeStep, TRANSITIONS } from '#ikev2/transitions'
import { along, type Datagram, pathOf } from '../sim/network.ts'
import { copyOf, type Side, type Watched, World } from './adversary.ts'
import { anonymousRequest, CLIENT, NODE, type Pair, pathBetween } from './pair.ts'
import { RogueClient, RogueNode, responder } from './rogue.ts'

// ---------------------------------------------------------------------------------------------- the model

/** What we know without looking: which IKE SAs were begun, and which of them have an excuse for ending. */
interface Model {
  /** By the client's id; what may have ended it. */
  readonly begun: Map<IkeSaId, Set<string>>
  /** Whose Child SA was deleted by its owner. */
  readonly bare: { readonly client: Set<IkeSaId>; readonly node: Set<IkeSaId> }
  /** How long datagrams were held back altogether. */
  held: number
  /** With additional key exchanges: IKE_INTERMEDIATE, and IKE_FOLLOWUP_KE of every rekey. */
  readonly isHybrid: boolean
}

/** An attempt gives up after 30 s without an answer; what is begun is excused when it had to wait for nearly that. */
const PATIENT = 20 * SECOND
// ---------------------------------------------------------------------------------------------- the acts

type Act = fc.Command<Model, World>

/** An act that is possible whenever `can` says so. */
const act = (
  name: string,
  run: (model: Model, world: World) => void,
  can: (model: Model) => boolean = () => true,
): Act => ({
  check: (model) => can(model),
  run,
  toString: () => name,
})

/** Begins an IKE SA: with the newest ticket, which may have been used, or without one. */
function begin(model: Model, { stage, client, isMobile, home }: World, withTicket: boolean): void {
  const newest = withTicket ? client.tickets.at(-1) : undefined
  // RFC 5723 section 4.3.4: the IKE SA that is resumed is gone at the node.
  if (newest !== undefined) model.begun.get(newest.sa)?.add('resumed')
  const resume = newest === undefined ? {} : { ticket: copyOf(newest.ticket) }
  const request = anonymousRequest(stage.key, {
    path: pathBetween(home, NODE),
    liveness: 10 * SECOND,
    resume,
    hybrid: model.isHybrid,
    ...(isMobile ? { mobile: true } : {}),
  })
  const sa = stage.client.engine.initiate(request, stage.network.now)
  model.begun.set(sa, new Set())
  newest?.shownBy.push(sa)
  // A ticket is good once: of those who show the same nobody need succeed.
  if (newest !== undefined && newest.shownBy.length > 1)
    for (const each of newest.shownBy) model.begun.get(each)!.add('a ticket was shown twice')
  stage.network.run(0)
}

const initiate = fc.boolean().map((withTicket) =>
  act(
    `initiate ${withTicket ? 'with' : 'without'} a ticket`,
    (model, world) => begin(model, world, withTicket),
    ({ begun }) => begun.size < 4,
  ),
)

/** Something that happens to the n-th datagram in flight. */
const onFlight = (
  name: string,
  happen: (world: World, datagram: Datagram, index: number, model: Model) => void,
): fc.Arbitrary<Act> =>
  fc.nat().map((n) =>
    act(`${name}(${n})`, (model, world) => {
      if (world.flight.length === 0) return
      const index = n % world.flight.length
      happen(world, world.flight[index]!, index, model)
    }),
  )

const deliver = onFlight('deliver', (world, datagram, index) => {
  world.flight.splice(index, 1)
  world.deliver(datagram)
})
const first = fc.constant(
  act('deliver the first', (_, world) => {
    const datagram = world.flight.shift()
    if (datagram !== undefined) world.deliver(datagram)
  }),
)
const several = fc.integer({ min: 2, max: 8 }).map((most) =>
  act(`deliver ${most}`, (_, world) => {
    for (const datagram of world.flight.splice(0, most)) world.deliver(datagram)
  }),
)
const repeat = onFlight('repeat', (world, datagram) => world.deliver(datagram))
const lose = onFlight('lose', (world, _, index) => world.flight.splice(index, 1))
const change = fc.tuple(fc.nat(), fc.integer({ min: 1, max: 255 })).chain(([place, bits]) =>
  onFlight(`change ${place} ${bits}`, (world, datagram, _, model) => {
    const at = place % datagram.bytes.length
    const bytes = datagram.bytes.with(at, datagram.bytes[at]! ^ bits)
    // Nothing protects it but the AUTH of later on: whoever changes it can make an attempt fail.
    if (isUnprotected(datagram)) for (const excuses of model.begun.values()) excuses.add('changed')
    world.deliver({ ...datagram, bytes })
  }),
)
const fromHistory = (name: string, happen: (datagram: Datagram) => Datagram): fc.Arbitrary<Act> =>
  fc.nat().map((n) =>
    act(`${name}(${n})`, (_, world) => {
      const { history } = world
      if (history.length > 0) world.deliver(happen(history[n % history.length]!))
    }),
  )
const replay = fromHistory('replay', (datagram) => datagram)
const reflect = fromHistory('reflect', ({ source, destination, bytes }) => ({
  source: destination,
  destination: source,
  bytes,
}))
const garbage = fc
  .tuple(fc.constantFrom<Side>('client', 'node'), fc.uint8Array({ maxLength: 120 }))
  .map(([to, bytes]) =>
    act(`garbage for the ${to}`, (_, world) => {
      const path = to === 'node' ? pathBetween(CLIENT, NODE) : pathBetween(NODE, CLIENT)
      world.deliver(along(path, bytes))
    }),
  )
const wait = fc.integer({ min: 1, max: 4000 }).map((time) =>
  act(`wait ${time} ms`, (model, world) => {
    model.held += time
    world.pass(time)
  }),
)

/** What an owner does to one of its IKE SAs. */
const owner = (
  name: string,
  excuse: string | undefined,
  run: (watched: Watched, sa: IkeSaId, now: Pair['network']['now']) => void,
): fc.Arbitrary<Act> =>
  fc.tuple(fc.constantFrom<Side>('client', 'node'), fc.nat()).map(([side, n]) =>
    act(`${side} ${name}`, (model, world) => {
      const watched = world.side(side)
      const attempts = [...model.begun.keys()].filter((id) => !world.client.ended.has(id))
      const ids = side === 'client' ? attempts : [...watched.open]
      const sa = ids[n % Math.max(1, ids.length)]
      if (sa === undefined) return
      if (excuse !== undefined) {
        const begun = side === 'client' ? sa : world.partnerOf('node', sa)
        for (const [id, excuses] of model.begun) if (begun === undefined || id === begun) excuses.add(excuse)
      }
      run(watched, sa, world.stage.network.now)
      world.pass(0)
    }),
  )

const rekeyChild = owner('rekeys a Child SA', undefined, ({ host }, sa, now) => {
  const spi = host.sending.get(sa)?.inboundSpi
  if (spi !== undefined) host.engine.rekeyChild(sa, spi, now)
})
const rekeyIke = owner('rekeys the IKE SA', undefined, ({ host }, sa, now) => host.engine.rekeyIke(sa, now))
const closeChild = fc.tuple(fc.constantFrom<Side>('client', 'node'), fc.nat()).map(([side, n]) =>
  act(`${side} deletes a Child SA`, (model, world) => {
    const { host, open } = world.side(side)
    const ids = [...open]
    const sa = ids[n % Math.max(1, ids.length)]
    const child = sa === undefined ? undefined : host.sending.get(sa)
    if (sa === undefined || child === undefined) return
    model.bare[side].add(sa)
    host.engine.closeChild(sa, child.inboundSpi, world.stage.network.now)
    world.pass(0)
  }),
)
/** What is not established yet ends; everything else goes along. */
const move = fc.constant(
  act('the client moves', (model, world) => {
    if (!world.isMobile) return
    for (const [sa, excuses] of model.begun) if (!world.client.open.has(sa)) excuses.add('moved')
    world.relocate(model.begun.keys())
  }),
)
const close = owner('closes', 'closed', ({ host }, sa, now) => host.engine.close(sa, now))
const abandon = owner('abandons', 'abandoned', ({ host }, sa) => host.engine.abandon(sa))

/** As likely as their number says. */
const times = (count: number, one: fc.Arbitrary<Act>): fc.Arbitrary<Act>[] => new Array(count).fill(one)

const acts = [
  ...times(2, initiate),
  ...[repeat, lose, change, replay, reflect, garbage, wait, close, abandon, closeChild],
  ...times(2, move),
  ...times(3, deliver),
  ...times(8, first),
  ...times(4, several),
  ...times(4, rekeyChild),
  ...times(4, rekeyIke),
]

// ---------------------------------------------------------------------------------------------- what must come of it

function settle(model: Model, world: World): void {
  const { client, node } = world
  world.flow(600 * SECOND)
  for (const [sa, excuses] of model.begun) {
    if (excuses.size === 0 && model.held < PATIENT)
      assert.ok(client.open.has(sa), `IKE SA ${sa} ended without an excuse: ${reasonOf(client, sa)}`)
    assert.ok(client.open.has(sa) || client.ended.has(sa), 'undecided')
  }
  assert.equal(client.open.size, node.open.size, 'open on both sides, or on none')
  const empty = { client: 0, node: 0 }
  for (const [side, other] of [
    ['client', node],
    ['node', client],
  ] as const)
    for (const sa of world.side(side).open) {
      const { size } = world.side(side).children.get(sa)!
      assert.ok(size <= (model.bare[side].has(sa) ? 0 : 1), `${size} Child SAs of IKE SA ${sa}, ${side}`)
      if (size === 0) empty[side]++
      if (size === 0) continue
      const partner = world.partnerOf(side, sa)
      assert.ok(partner !== undefined, 'and the other side has the same')
      assert.equal(other.child(partner)!.outboundSpi, world.side(side).child(sa)!.inboundSpi)
    }
  // Who has none had it deleted, by itself or by the peer, and the peer has none either.
  assert.equal(empty.client, empty.node)
  const deleted = [...model.bare.client].filter((sa) => client.open.has(sa))
  const deletedByNode = [...model.bare.node].filter((sa) => node.open.has(sa))
  assert.ok(empty.client <= deleted.length + deletedByNode.length, 'a Child SA that nobody deleted')
  world.end()
}

const reasonOf = ({ host }: Watched, sa: IkeSaId): string =>
  host.events
    .flatMap((event) => (event.kind === 'ike.closed' && event.sa === sa ? [event.detail] : []))
    .join()

const UNPROTECTED: readonly number[] = [EXCHANGE.number.IKE_SA_INIT, EXCHANGE.number.IKE_SESSION_RESUME]
const isUnprotected = (datagram: Datagram): boolean =>
  UNPROTECTED.includes(decodeHeader(unframe(pathOf(datagram), datagram.bytes)!).exchange)

// ---------------------------------------------------------------------------------------------- rows that were taken

const taken = new Set<string>()
const rowsOf = (): string[] =>
  Object.entries(TRANSITIONS).flatMap(([state, steps]) =>
    Object.keys(steps).map((step) => `${state}: ${step}`),
  )

/** Every row of the table tells when it is taken. */
function watchTable(): void {
  const table = TRANSITIONS as Record<IkeState, Partial<Record<IkeStep, IkeState>>>
  for (const [state, steps] of Object.entries(table)) {
    table[state as IkeState] = new Proxy(steps, {
      get(target, step: IkeStep) {
        if (target[step] !== undefined) taken.add(`${state}: ${step}`)
        return target[step]
      },
    })
  }
}
watchTable()

/** What happened in all runs: a model that nothing happens to proves nothing. */
const happened = new Map<string, number>()
const count = ({ host }: Watched): void => {
  for (const event of host.events) {
    const name = event.kind === 'exchange' ? event.name : event.kind
    happened.set(name, (happened.get(name) ?? 0) + 1)
  }
}

const RUNS = 120
const RARER = [
  ['child.rekeyed', RUNS / 6],
  ['child.switched', RUNS / 8],
  ['IKE_FOLLOWUP_KE', RUNS / 20],
  ['ike.moved', RUNS / 20],
] as const
test(`${RUNS} sequences of acts: both ends converge, agree on keys, and leave nothing`, () => {
  fc.assert(
    fc.property(
      fc.commands(acts, { size: '+2', maxCommands: 120 }),
      fc.record({
        seed: fc.integer({ min: 1, max: 1000 }),
        cookies: fc.boolean(),
        isOpen: fc.boolean(),
        isHybrid: fc.boolean(),
        isMobile: fc.boolean(),
      }),
      (commands, options) => {
        const { isHybrid } = options
        const bare = { client: new Set<IkeSaId>(), node: new Set<IkeSaId>() }
        const model: Model = { begun: new Map(), bare, held: 0, isHybrid }
        const world = new World(options)
        if (options.isOpen) {
          begin(model, world, false)
          world.flow(0)
        }
        fc.modelRun(() => ({ model, real: world }), commands)
        count(world.client)
        settle(model, world)
      },
    ),
    { numRuns: RUNS, seed: 20 },
  )
  const often = ['child.established', 'ike.closed', 'refused']
  const least = new Map([...often.map((kind) => [kind, RUNS / 4] as const), ...RARER])
  for (const [kind, runs] of least)
    assert.ok((happened.get(kind) ?? 0) > runs, `${kind}: ${happened.get(kind)} times in ${RUNS} runs`)
})

test('rows that only peers unlike ours take: one without additional key exchanges, one that is refused', () => {
  const node = new RogueNode()
  node.init()
  node.authenticate()
  assert.ok(node.subject.last('child.established'))
  for (const hybrid of [true, false]) {
    const subject = responder()
    const client = hybrid ? new RogueClient(subject).hybrid() : new RogueClient(subject)
    client.init()
    client.ask(hybrid ? EXCHANGE.number.IKE_INTERMEDIATE : EXCHANGE.number.IKE_AUTH, [])
    subject.sleep(60 * SECOND)
    assert.ok(subject.isEmpty)
  }
})

after(() => {
  const missed = rowsOf().filter((row) => !taken.has(row))
  assert.deepEqual(missed, [], 'every row of the transition table is taken in this file')
})
