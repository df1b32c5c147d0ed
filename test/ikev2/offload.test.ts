/** A responder whose long work is done elsewhere: late, in another order, twice, or not at all. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Ip } from '#base/ip'
import { ip } from '#base/ip'
import { type Instant, instant, SECOND } from '#base/time'
import { perform } from '#ikev2/computation'
import { IkeEngine, type IkeLimits } from '#ikev2/engine'
import type { Compute, IkeOutput, ResponderPolicy } from '#ikev2/events'
import { seededCrypto, seededRng } from '../sim/random.ts'
import { anonymousRequest, NODE, nodeKey, openPolicy, pathBetween } from './pair.ts'

interface Datagram {
  readonly from: Ip
  readonly bytes: Uint8Array
}

/** A node that offloads, and clients that do not. Datagrams arrive at once, results when the test says so. */
class Stage {
  readonly key = nodeKey(seededCrypto(seededRng(1)))
  readonly node: IkeEngine
  readonly clients = new Map<Ip, IkeEngine>()
  readonly jobs: Compute[] = []
  readonly said = new Map<Ip, IkeOutput[]>()
  /** All that clients sent, in order. */
  readonly sent: Datagram[] = []
  readonly events: IkeOutput[] = []
  /** Datagrams that the node sent. */
  answers = 0
  now: Instant = instant(0)

  constructor(options: { limits?: Partial<IkeLimits>; policy?: Partial<ResponderPolicy> } = {}) {
    const { limits = {}, policy = {} } = options
    const responder = openPolicy(this.key, policy)
    this.node = new IkeEngine({ crypto: seededCrypto(seededRng(2)), responder, limits, offload: true })
  }

  /** A client begins. */
  join(number: number, hybrid = false): Ip {
    const address = ip(`192.0.2.${number}`)
    const client = new IkeEngine({ crypto: seededCrypto(seededRng(10 + number)) })
    this.clients.set(address, client)
    this.said.set(address, [])
    client.initiate(anonymousRequest(this.key, { hybrid, path: pathBetween(address, NODE) }), this.now)
    this.settle()
    return address
  }

  /** Delivers until nobody has anything to say but jobs. */
  settle(): void {
    for (let turn = 0, isQuiet = false; !isQuiet; turn++) {
      assert.ok(turn < 1000)
      isQuiet = true
      for (const [from, client] of this.clients)
        for (let output = client.poll(); output !== undefined; output = client.poll()) {
          isQuiet = false
          this.said.get(from)!.push(output)
          if (output.kind !== 'transmit') continue
          this.sent.push({ from, bytes: output.bytes })
          this.deliver({ from, bytes: output.bytes })
        }
      for (let output = this.node.poll(); output !== undefined; output = this.node.poll()) {
        isQuiet = false
        if (output.kind === 'compute') this.jobs.push(output)
        else if (output.kind !== 'transmit') this.events.push(output)
        else {
          this.answers++
          const { address } = output.path.remote
          const path = pathBetween(address, NODE)
          this.clients.get(address)!.handle({ kind: 'datagram', path, bytes: output.bytes }, this.now)
        }
      }
    }
  }

  deliver({ from, bytes }: Datagram): void {
    const path = pathBetween(NODE, from)
    this.node.handle({ kind: 'datagram', path, bytes: bytes.slice() }, this.now)
  }

  finish(compute: Compute): void {
    const result = perform(seededCrypto(seededRng(100 + compute.id)), this.key.credential, compute.job)
    this.answer(compute, { result })
  }

  answer({ id }: Compute, done: { result: ReturnType<typeof perform> } | undefined): void {
    this.node.handle({ kind: 'computed', id, done }, this.now)
    this.settle()
  }

  /** Does all there is to do, and what comes of it; `pick` says which of the waiting jobs is next. */
  finishAll(pick: (waiting: number) => number = () => 0): string[] {
    const kinds: string[] = []
    while (this.jobs.length > 0) {
      const [job] = this.jobs.splice(pick(this.jobs.length), 1)
      kinds.push(job!.job.kind)
      this.finish(job!)
    }
    return kinds
  }

  pass(time: number): void {
    this.now = instant(this.now + time)
    this.node.tick(this.now)
    for (const client of this.clients.values()) client.tick(this.now)
    this.settle()
  }

  isConnected(client: Ip): boolean {
    return this.said.get(client)!.some(({ kind }) => kind === 'child.established')
  }

  closedFor(client: Ip): string | undefined {
    return this.said.get(client)!.find((output) => output.kind === 'ike.closed')?.reason
  }

  count(name: string): number {
    return this.node.counters()[name] ?? 0
  }
}

test('a handshake is its jobs, one after the other, and both sides have the same keys', () => {
  for (const hybrid of [false, true]) {
    const stage = new Stage()
    const client = stage.join(1, hybrid)
    assert.equal(stage.answers, 0)
    assert.equal(stage.count('sas.all'), 0)
    assert.equal(stage.count('answers.computing'), 1)
    assert.deepEqual(stage.finishAll(), hybrid ? ['keys', 'encapsulation', 'proofs'] : ['keys', 'proofs'])
    const ours = stage.events.find(({ kind }) => kind === 'child.established')
    const theirs = stage.said.get(client)!.find(({ kind }) => kind === 'child.established')
    assert.ok(ours?.kind === 'child.established' && theirs?.kind === 'child.established')
    assert.deepEqual(ours.child.inboundKey, theirs.child.outboundKey)
    assert.deepEqual(ours.child.outboundKey, theirs.child.inboundKey)
    assert.equal(stage.count('answers.computing'), 0)
  }
})

test('results may come in any order', () => {
  const picks = [(waiting: number) => waiting - 1, (waiting: number) => (7 * waiting + 3) % waiting]
  for (const pick of picks) {
    const stage = new Stage()
    const clients = Array.from({ length: 8 }, (_, i) => stage.join(i + 1, i % 2 === 0))
    assert.equal(stage.jobs.length, 8)
    stage.finishAll(pick)
    assert.deepEqual(
      clients.map((client) => stage.isConnected(client)),
      clients.map(() => true),
    )
  }
})

test('a request that is repeated while its answer is computed makes no second job and no second answer', () => {
  const stage = new Stage()
  const client = stage.join(1)
  stage.deliver(stage.sent[0]!)
  stage.settle()
  assert.equal(stage.jobs.length, 1)
  stage.finish(stage.jobs.shift()!)
  assert.equal(stage.jobs.length, 1)
  const auth = stage.sent.at(-1)!
  stage.deliver(auth)
  stage.deliver(auth)
  stage.settle()
  assert.equal(stage.jobs.length, 1)
  assert.equal(stage.answers, 1)
  stage.finish(stage.jobs.shift()!)
  assert.equal(stage.answers, 2)
  assert.ok(stage.isConnected(client))
  stage.deliver(auth)
  stage.settle()
  assert.equal(stage.jobs.length, 0)
  assert.equal(stage.answers, 3, 'the answer again')
  assert.equal(stage.count('established.full'), 1)
})

test('an IKE SA that is gone when its result comes stays gone, and the result is wiped', () => {
  const stage = new Stage()
  stage.join(1, true)
  stage.finish(stage.jobs.shift()!)
  const encapsulation = stage.jobs.shift()!
  assert.equal(encapsulation.job.kind, 'encapsulation')
  stage.clients.clear()
  stage.pass(31 * SECOND)
  assert.equal(stage.count('half-open-expired'), 1)
  assert.equal(stage.count('sas.all'), 0)
  const { answers } = stage
  const result = { ciphertext: new Uint8Array(1088).fill(7), sharedSecret: new Uint8Array(32).fill(7) }
  stage.answer(encapsulation, { result })
  assert.deepEqual(result.sharedSecret, new Uint8Array(32))
  assert.equal(stage.answers, answers)
  assert.equal(stage.count('sas.all'), 0)
  assert.equal(stage.count('spis.inbound'), 0)
  assert.equal(stage.count('answers.computing'), 0)
  assert.equal(stage.node.nextTimeout(), undefined)
})

test('a half-open IKE SA that is displaced while its AUTH is computed does not come back', () => {
  const stage = new Stage({ limits: { halfOpen: 2, cookieAt: 100, puzzleAt: 100 } })
  const first = stage.join(1)
  stage.join(2)
  for (const job of stage.jobs.splice(0, 2)) stage.finish(job)
  const [proofs] = stage.jobs.splice(0)
  const other = new Stage()
  const stranger = ip('203.0.113.9')
  const client = new IkeEngine({ crypto: seededCrypto(seededRng(9)) })
  client.initiate(anonymousRequest(other.key, { path: pathBetween(stranger, NODE) }), stage.now)
  stage.clients.set(stranger, client)
  stage.said.set(stranger, [])
  stage.settle()
  assert.equal(stage.count('half-open-displaced'), 1)
  stage.finish(proofs!)
  assert.ok(!stage.isConnected(first))
  assert.equal(stage.count('spis.inbound'), 0)
})

test('a job that fails is counted, and asked for again it succeeds', () => {
  const stage = new Stage()
  const client = stage.join(1)
  stage.answer(stage.jobs.shift()!, undefined)
  assert.equal(stage.count('not-computed'), 1)
  assert.equal(stage.count('sas.all'), 0)
  stage.pass(5 * SECOND)
  assert.equal(stage.jobs.length, 1)
  stage.finish(stage.jobs.shift()!)
  assert.equal(stage.jobs[0]?.job.kind, 'proofs')
  stage.answer(stage.jobs.shift()!, undefined)
  assert.equal(stage.count('not-computed'), 2)
  assert.equal(stage.count('spis.inbound'), 0)
  stage.pass(5 * SECOND)
  assert.deepEqual(stage.finishAll(), ['proofs'])
  assert.ok(stage.isConnected(client))
})

test('no more is computed at a time than may be; who comes later asks again', () => {
  const stage = new Stage({ limits: { computing: 2 } })
  const clients = [1, 2, 3].map((number) => stage.join(number))
  assert.equal(stage.jobs.length, 2)
  assert.equal(stage.count('busy'), 1)
  // The first one's AUTH takes the place of its IKE_SA_INIT.
  stage.finish(stage.jobs.shift()!)
  assert.equal(stage.count('answers.computing'), 2)
  stage.finishAll()
  assert.ok(!stage.isConnected(clients[2]!))
  stage.pass(5 * SECOND)
  stage.finishAll()
  assert.deepEqual(
    clients.map((client) => stage.isConnected(client)),
    [true, true, true],
  )
})

test('a peer that is not believed, or no longer welcome when its proof is checked, is told so', () => {
  const disbelieved = new Stage()
  const liar = disbelieved.join(1)
  disbelieved.finish(disbelieved.jobs.shift()!)
  disbelieved.answer(disbelieved.jobs.shift()!, {
    result: { fault: 'the NULL authentication data is wrong' },
  })
  assert.equal(disbelieved.closedFor(liar), 'IPP_IKE_REFUSED')
  assert.equal(disbelieved.count('auth-failed'), 1)

  let isOpen = true
  const closing = new Stage({
    policy: { admitAnonymous: () => (isOpen ? undefined : 'IPP_OVERLAY_NOT_LISTED') },
  })
  const late = closing.join(1)
  closing.finish(closing.jobs.shift()!)
  isOpen = false
  closing.finish(closing.jobs.shift()!)
  assert.equal(closing.closedFor(late), 'IPP_IKE_REFUSED')
  assert.equal(closing.count('spis.inbound'), 0)
})

test('a key exchange value that is none comes to nothing', () => {
  const stage = new Stage()
  stage.join(1)
  stage.answer(stage.jobs.shift()!, { result: undefined })
  assert.equal(stage.count('bad-ke'), 1)
  assert.equal(stage.count('sas.all'), 0)
  assert.equal(stage.count('answers.computing'), 0)
})

test('a result for nothing is ignored', () => {
  const stage = new Stage()
  const client = stage.join(1)
  const [job] = stage.jobs
  stage.answer({ ...job!, id: 999 }, { result: undefined })
  stage.finishAll()
  stage.answer(job!, { result: undefined })
  assert.ok(stage.isConnected(client))
  assert.equal(stage.count('bad-ke'), 0)
})
