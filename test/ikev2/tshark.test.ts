/**
 * A second opinion on our octets: Wireshark's dissectors decrypt what the machines say to each other, with the keys of
 * our own key log, and find every ICV correct and no message malformed.
 */
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { toHex } from '#base/bytes'
import { SECOND } from '#base/time'
import { nodeCrypto } from '#crypto/node'
import type { IkeKeys } from '#ikev2/events'
import { ikeRekeyOffer, ikeRekeyRequest } from '#ikev2/exchange/create-child'
import { EXCHANGE } from '#ikev2/numbers'
import { KeyLog } from '#observe/keylog'
import type { ClientEvent } from '#overlay/client'
import type { RouterEvent } from '#overlay/router'
import type { SaSpec } from '#telescope/plane'
import { addressText, destination, source } from '#wire/ipv4'
import { ipv4, PROTOCOL, pcap, udp } from '../demo/packets.ts'
import { CLIENT as CLIENT_IN_SIM, SERVER, SimOverlay } from '../sim/overlay.ts'
import { CLIENT, NODE, openPolicy } from './pair.ts'
import { KEY, RogueClient, Subject } from './rogue.ts'

const NAMES = ['alder', 'birch', 'cedar']
const { number: X } = EXCHANGE
const isMissing = spawnSync('tshark', ['--version']).error !== undefined
const skip = isMissing ? 'tshark is not installed; sh deploy/setup.sh test does it' : false

/** Every field of every packet, by name: the text Wireshark shows. */
type Packets = readonly (readonly { readonly name: string; readonly shown: string }[])[]

/** What tshark sees in raw IP packets with these keys. A choice of packets has gaps in their sequence. */
function dissect(
  packets: readonly Uint8Array[],
  ike: readonly IkeKeys[],
  esp: readonly SaSpec[],
  sequence: 'whole' | 'gaps' = 'whole',
): Packets {
  const directory = mkdtempSync(join(tmpdir(), 'ippriv-tshark-'))
  try {
    const log = new KeyLog(directory)
    for (const keys of ike) log.ike(keys)
    for (const sa of esp) log.esp(sa)
    const file = join(directory, 'capture.pcap')
    writeFileSync(file, pcap(packets, { linkType: 101 }))
    const options = [
      'enable_encryption_decode:TRUE',
      'enable_authentication_check:TRUE',
      `do_esp_sequence_analysis:${sequence === 'whole' ? 'TRUE' : 'FALSE'}`,
    ].flatMap((option) => ['-o', `esp.${option}`])
    const pdml = execFileSync('tshark', ['-r', file, ...options, '-T', 'pdml'], {
      env: { ...process.env, WIRESHARK_CONFIG_DIR: directory },
      stdio: ['ignore', 'pipe', 'ignore'],
      maxBuffer: 2 ** 28,
      encoding: 'utf8',
    })
    return pdml
      .split('<packet>')
      .slice(1)
      .map((packet) =>
        [...packet.matchAll(/<(?:field|proto) name="([^"]*)"(?: showname="([^"]*)")?/g)].map(
          ([, name = '', shown = '']) => ({ name, shown }),
        ),
      )
  } finally {
    rmSync(directory, { recursive: true })
  }
}

/**
 * tshark 4.0 dies on an ID payload without data, which ID_NULL is (RFC 7619 section 2.2): by an assertion of its own,
 * after it has checked the ICV, and it calls that malformed.
 */
const ID_NULL_BUG = /Dissector bug, protocol ISAKMP: .*len &gt; 0/

const shownOf = (fields: Packets[number], name: string): string =>
  fields.find((field) => field.name === name)?.shown ?? ''

function exchangeOf(fields: Packets[number]): string | undefined {
  const [, name, number] = /: (\S+) \((\d+)\)/.exec(shownOf(fields, 'isakmp.exchangetype')) ?? []
  // tshark 4.0 has no name for what is newer than itself.
  return name === 'Unknown' ? EXCHANGE.nameOf(Number(number)) : name
}

/** Nothing malformed, no expert's complaint, every ICV right. How many were right, by exchange. */
function assertClean(packets: Packets): Count {
  const count: Count = { ike: {}, esp: 0 }
  for (const [index, fields] of packets.entries()) {
    const exchange = exchangeOf(fields)
    const isOurIdNull = fields.some(({ shown }) => ID_NULL_BUG.test(shown))
    if (isOurIdNull) assert.match(shownOf(fields, 'isakmp.id.type'), /\(13\)$/, 'the bug is about ID_NULL')
    for (const { name, shown } of fields) {
      const where = `packet ${index + 1}, ${exchange}: ${name} ${shown}`
      if (!isOurIdNull) assert.doesNotMatch(name, /^_ws\.(malformed|short|expert)/, where)
      assert.ok(name !== 'esp.icv_bad' || shown.endsWith('False'), where)
      if (name === 'esp.icv_good' && shown.endsWith('True')) count.esp++
      if (name !== 'isakmp.enc.icd') continue
      assert.match(shown, /\[correct\]/, where)
      count.ike[exchange!] = (count.ike[exchange!] ?? 0) + 1
    }
  }
  return count
}

interface Count {
  readonly ike: Record<string, number>
  esp: number
}

/** One IKE SA per SPI pair in Wireshark's table: with IKE_INTERMEDIATE the keys change under the same SPIs. */
function keysOf(all: readonly IkeKeys[], which: 'first' | 'last'): IkeKeys[] {
  const bySpi = new Map<string, IkeKeys>()
  for (const keys of all) {
    const spis = toHex(keys.spiInitiator) + toHex(keys.spiResponder)
    if (which === 'last' || !bySpi.has(spis)) bySpi.set(spis, keys)
  }
  return [...bySpi.values()]
}

test('IKE_SA_INIT, IKE_AUTH, INFORMATIONAL, rekeys: what a peer by the book and our engine say', {
  skip,
}, () => {
  const publishedKey = new TextEncoder().encode('everybody knows')
  const subject = new Subject({ responder: openPolicy(KEY, { publishedKey }), keyLog: true })
  const packets: Uint8Array[] = []
  const hear = subject.hear.bind(subject)
  const packet = (from: string, to: string, bytes: Uint8Array): void => {
    packets.push(ipv4(from, to, PROTOCOL.udp, udp(500, 500, bytes)))
  }
  subject.hear = (bytes, path) => {
    packet(CLIENT, NODE, bytes)
    const sent = hear(bytes, path)
    for (const answer of sent) packet(NODE, CLIENT, answer)
    return sent
  }
  const client = new RogueClient(subject)
  client.init()
  const credential = { kind: 'psk', key: publishedKey } as const
  assert.ok(client.ask(X.IKE_AUTH, client.authPayloads(credential))?.some(({ kind }) => kind === 'SA'))
  client.ask(X.INFORMATIONAL, [])
  const offer = ikeRekeyOffer(nodeCrypto, nodeCrypto.random(8), client.channel!.suite)
  const successor = client.renewed(offer, client.ask(X.CREATE_CHILD_SA, ikeRekeyRequest(offer))!)
  successor.ask(X.INFORMATIONAL, [{ kind: 'Delete', protocol: 1, spis: [] }])
  assert.equal(packets.length, 10)
  const keys = subject.outputs.filter((output) => output.kind === 'keys')
  const { ike } = assertClean(dissect(packets, keys, []))
  assert.deepEqual(ike, { IKE_AUTH: 2, INFORMATIONAL: 4, CREATE_CHILD_SA: 2 })
  const wrong = keys.map((each) => ({ ...each, skEr: each.skEr.with(0, each.skEr[0]! ^ 1) }))
  assert.throws(() => assertClean(dissect(packets, wrong, [])), /incorrect|malformed/, 'this test can fail')
})

test('a telescope through three nodes, with ML-KEM, rekeys and data: every layer on every link', {
  skip,
}, () => {
  const links = new Map<string, Uint8Array[]>()
  const world = new SimOverlay(NAMES, {
    seed: 7,
    path: NAMES,
    lifetimes: { child: 40 * SECOND, ike: 100 * SECOND },
    // tshark 4.0 decrypts ESP with 64-bit sequence numbers and finds no ICV of it correct, whoever made it.
    taps: { keyLog: true, esn: false, packet },
  })
  function packet(each: Uint8Array): void {
    const link = [addressText(source(each, 0)), addressText(destination(each, 0))].sort().join(' ')
    links.set(link, [...(links.get(link) ?? []), each.slice()])
  }
  assert.ok(world.raise())
  world.client.input({ kind: 'start' })
  world.client.input({ kind: 'consensus', consensus: world.consensus })
  assert.ok(world.runUntil(() => world.client.machine.state === 'ready', 30_000))
  const address = world.client.machine.circuits[0]!.telescope.privateAddresses.at(-1)!
  for (let i = 0; i < 15; i++) {
    world.client.say(address, SERVER, 7007, `question ${i}`)
    world.run(10 * SECOND)
  }
  const hosts = [...world.routers.values(), world.client]
  const keys = hosts.flatMap(({ events }) =>
    [...events].flatMap((event: RouterEvent | ClientEvent) => (event.kind === 'keys' ? [event.keys] : [])),
  )
  // The receiver's SA is enough: the sender's is the same.
  const sas = hosts
    .flatMap(({ planeOperations }) => planeOperations)
    .flatMap((each) => (each.kind === 'sa.install' && each.sa.flow === 'inbound' ? [each.sa] : []))

  assert.equal(links.size, 4, 'client and entry, and every two nodes')
  for (const [link, packets] of links) {
    const isOfClient = link.includes(CLIENT_IN_SIM)
    // It must not see what its keys are not for: it puts fragments of any IKE SAs together, deciphered rightly or not.
    const seen = dissect(packets, [], sas)
    assertClean(seen)
    const those = (early: boolean) =>
      packets.filter((_, i) => (exchangeOf(seen[i]!) === INTERMEDIATE) === early)
    const early = assertClean(dissect(those(true), keysOf(keys, 'first'), sas, 'gaps'))
    const late = assertClean(dissect(those(false), keysOf(keys, 'last'), sas, 'gaps'))
    // A request of two fragments, and its answer, for every hop.
    assert.ok(early.ike[INTERMEDIATE]! >= (isOfClient ? 9 : 3), `${link}: ${JSON.stringify(early)}`)
    assert.ok(late.ike.IKE_AUTH! >= (isOfClient ? 6 : 2))
    assert.ok(late.ike.CREATE_CHILD_SA! > 4)
    assert.ok(late.ike.IKE_FOLLOWUP_KE! > 6)
    if (isOfClient) assert.ok(late.esp > 3 * 30, `${late.esp} packets of ESP`)
  }
})

const INTERMEDIATE = 'IKE_INTERMEDIATE'
