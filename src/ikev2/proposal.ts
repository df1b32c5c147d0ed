/**
 * Proposals: what we offer, what we choose, and whether a choice is one we offered (RFC 7296 sections 2.7, 3.3).
 *
 * The profile is one for everybody (architecture section 4): a client that offers something of its own could be
 * told from the others.
 */
import type { HashName } from '#crypto/provider'
import { ESP_CIPHER_NAMES, ESP_CIPHERS, type EspCipher } from '#crypto/suites'
import { noProposal, type PeerFault } from '#ikev2/fault'
import { ACCEPTED_GROUPS } from '#ikev2/groups'
import type { Proposal, Transform, TransformAttribute } from '#ikev2/message/proposal'
import { GROUP, KEY_LENGTH_ATTRIBUTE, PRF, PROTOCOL, SEQUENCE_NUMBERS, TRANSFORM } from '#ikev2/numbers'

/** The algorithms of one IKE SA. */
export interface IkeSuite {
  readonly cipher: EspCipher
  readonly prf: HashName
  /** Octets of PRF output, and so of SK_d and SK_p. */
  readonly prfLength: number
  readonly group: number
  /** The additional key exchange (RFC 9370): of IKE_INTERMEDIATE, or in a rekey of IKE_FOLLOWUP_KE. */
  readonly additional?: number
}

/** The algorithms of one Child SA. */
export interface EspSuite {
  readonly cipher: EspCipher
  readonly esn: boolean
  /** Of the key exchange around it; absent in IKE_AUTH, and where a rekey has none. */
  readonly group?: number
  /** That of IKE_FOLLOWUP_KE. */
  readonly additional?: number
}

/** Key exchange methods an initiator offers: the first is the one it guesses, the other for stock routers without. */
export const IKE_GROUPS: readonly number[] = ACCEPTED_GROUPS

/** Additional key exchanges, on top of one of the above. */
const ADDITIONAL: readonly Transform[] = [transform(TRANSFORM.number.ADDKE1, GROUP.number.MLKEM768)]

/** What an initiator offers for the IKE SA: the AEADs of RFC 8247, and nothing that needs an integrity algorithm beside it. */
const IKE_CIPHERS: readonly EspCipher[] = ['aes-256-gcm-16', 'chacha20-poly1305']
/** What a responder takes. */
const ACCEPTED_CIPHERS: readonly EspCipher[] = [...IKE_CIPHERS, 'aes-128-gcm-16']

/** The first is what we offer; a peer may offer the others. */
const PRFS = [
  { id: PRF.number.HMAC_SHA2_256, hash: 'sha256', length: 32 },
  { id: PRF.number.HMAC_SHA2_384, hash: 'sha384', length: 48 },
  { id: PRF.number.HMAC_SHA2_512, hash: 'sha512', length: 64 },
] as const

/**
 * What an initiator offers for the IKE SA. `hybrid`: first with an additional key exchange, then without, in a proposal
 * of its own for peers that do not know the transform.
 */
export function ikeProposals({ hybrid = false }: { readonly hybrid?: boolean } = {}): Proposal[] {
  const plain = ikeTransforms(IKE_CIPHERS, PRFS[0].hash, IKE_GROUPS.map(keTransform))
  return numbered(PROTOCOL.number.IKE, NO_SPI, [...(hybrid ? [[...plain, ...ADDITIONAL]] : []), plain])
}

/**
 * Key exchange methods that either side offers when it rekeys under an IKE SA of `suite`: what the peer is known to
 * have comes first. Who has ML-KEM has X25519; of others one cannot know what they have for Child SAs.
 */
export const rekeyGroups = ({ group, additional }: IkeSuite): readonly number[] => [
  group,
  ...(additional === undefined ? ACCEPTED_GROUPS.filter((other) => other !== group) : []),
]

/** The proposal of an IKE SA rekey, hybrid if the one before is, and its cipher first. It carries our SPI of the new IKE SA. */
export function ikeRekeyProposals(spi: Uint8Array, suite: IkeSuite): Proposal[] {
  const ciphers = [...new Set([suite.cipher, ...IKE_CIPHERS])]
  return numbered(PROTOCOL.number.IKE, spi, [ikeTransforms(ciphers, suite.prf, rekeyExchange(suite))])
}

const ikeTransforms = (
  ciphers: readonly EspCipher[],
  prf: HashName,
  exchange: readonly Transform[],
): Transform[] => [
  ...ciphers.map(cipherTransform),
  transform(TRANSFORM.number.PRF, PRFS.find(({ hash }) => hash === prf)!.id),
  ...exchange,
]

/** With or without in one proposal: this peer knows the transform. */
const rekeyExchange = (suite: IkeSuite): Transform[] => [
  ...rekeyGroups(suite).map(keTransform),
  ...(suite.additional === undefined ? [] : [...ADDITIONAL, transform(TRANSFORM.number.ADDKE1, NONE)]),
]

/** What an initiator offers for a Child SA in IKE_AUTH: extended sequence numbers first. */
export function espProposals(ciphers: readonly EspCipher[], spi: Uint8Array): Proposal[] {
  return numbered(PROTOCOL.number.ESP, spi, [espTransforms(ciphers, [])])
}

/**
 * What either side offers when it rekeys a Child SA of an IKE SA of `suite`: with a key exchange, hybrid if that one
 * is. Stock routers have none for Child SAs by default and would refuse, so where the IKE SA is not hybrid there is one
 * without as the last resort; its keys follow from those of the IKE SA, which is never rekeyed without.
 */
export function espRekeyProposals(
  ciphers: readonly EspCipher[],
  spi: Uint8Array,
  suite: IkeSuite,
): Proposal[] {
  const offers = [espTransforms(ciphers, rekeyExchange(suite))]
  if (suite.additional === undefined) offers.push(espTransforms(ciphers, []))
  return numbered(PROTOCOL.number.ESP, spi, offers)
}

const espTransforms = (ciphers: readonly EspCipher[], exchange: readonly Transform[]): Transform[] => [
  ...ciphers.map(cipherTransform),
  ...exchange,
  ...SEQUENCE_TRANSFORMS,
]

const numbered = (protocol: number, spi: Uint8Array, offers: readonly (readonly Transform[])[]): Proposal[] =>
  offers.map((transforms, index) => ({ number: index + 1, protocol, spi, transforms }))

export interface Choice<Suite> {
  readonly suite: Suite
  /** The one proposal of the answer, with the SPI of whoever made it: a responder puts in its own. */
  readonly proposal: Proposal
}

/**
 * A responder's choice for the IKE SA. `rekey`: the proposals carry SPIs. `hybrid`: an additional key exchange is
 * possible. @throws PeerFault NO_PROPOSAL_CHOSEN
 */
export function chooseIke(
  offered: readonly Proposal[],
  { rekey = false, hybrid = false } = {},
): Choice<IkeSuite> {
  const optional = hybrid ? HYBRID_OPTIONS : NO_OPTIONS
  return choose(offered, PROTOCOL.number.IKE, rekey ? IKE_SPI_LENGTH : 0, IKE_WANTS, ikeSuite, optional)
}

/** A responder's choice for a Child SA in IKE_AUTH. @throws PeerFault NO_PROPOSAL_CHOSEN */
export function chooseEsp(offered: readonly Proposal[], ciphers: readonly EspCipher[]): Choice<EspSuite> {
  return choose(offered, PROTOCOL.number.ESP, ESP_SPI_LENGTH, espWants(ciphers, []), espSuite)
}

/**
 * A responder's choice for the rekey of a Child SA. A key exchange if the peer began one (`begun`: there is a KE
 * payload) and any of its proposals has it, else none if one of them does without: that is the peer's policy, and
 * refusing it would end the tunnel of a stock router at its first rekey. @throws PeerFault NO_PROPOSAL_CHOSEN
 */
export function chooseEspRekey(
  offered: readonly Proposal[],
  ciphers: readonly EspCipher[],
  begun: boolean,
): Choice<EspSuite> {
  const wants = espWants(ciphers, ACCEPTED_GROUPS)
  const { ESP } = PROTOCOL.number
  const exchange = pick(offered, ESP, ESP_SPI_LENGTH, wants, espSuite, HYBRID_OPTIONS)
  const none = pick(offered, ESP, ESP_SPI_LENGTH, espWants(ciphers, []), espSuite)
  const choice = begun ? (exchange ?? none) : (none ?? exchange)
  if (choice === undefined) throw noneAcceptable(offered)
  return choice
}

/** Checks the responder's choice against our offer. @throws PeerFault when it is anything else. */
export function acceptIke(ours: readonly Proposal[], answer: readonly Proposal[]): Choice<IkeSuite> {
  const proposal = acceptAnswer(ours, answer)
  return { suite: ikeSuite(proposal.transforms), proposal }
}

/** As `acceptIke`. The proposal holds the peer's SPI. */
export function acceptEsp(ours: readonly Proposal[], answer: readonly Proposal[]): Choice<EspSuite> {
  const proposal = acceptAnswer(ours, answer)
  return { suite: espSuite(proposal.transforms), proposal }
}

/** For people: `aes-256-gcm-16/hmac-sha256/x25519+mlkem768`. */
export const formatSuite = ({ cipher, prf, group, additional }: IkeSuite): string => {
  const groups = [group, ...(additional === undefined ? [] : [additional])]
  return `${cipher}/hmac-${prf}/${groups.map((each) => GROUP.nameOf(each).toLowerCase()).join('+')}`
}

const NO_SPI: Uint8Array = new Uint8Array(0)
const ESP_SPI_LENGTH = 4
const IKE_SPI_LENGTH = 8

// ---------------------------------------------------------------------------------------------- choosing

/** Acceptable transforms by type, best first. */
type Wants = ReadonlyMap<number, readonly Transform[]>

const NONE = 0

const IKE_WANTS: Wants = new Map([
  [TRANSFORM.number.ENCR, ACCEPTED_CIPHERS.map(cipherTransform)],
  [TRANSFORM.number.PRF, PRFS.map(({ id }) => transform(TRANSFORM.number.PRF, id))],
  [TRANSFORM.number.KE, ACCEPTED_GROUPS.map(keTransform)],
])

/** Extended sequence numbers first. */
const SEQUENCE_TRANSFORMS: readonly Transform[] = [
  transform(TRANSFORM.number.SN, SEQUENCE_NUMBERS.number.EXTENDED),
  transform(TRANSFORM.number.SN, SEQUENCE_NUMBERS.number.SHORT),
]

/** Types that a proposal may leave out, and what of them we take before their NONE. */
const NO_OPTIONS: Wants = new Map()
const HYBRID_OPTIONS: Wants = new Map([[TRANSFORM.number.ADDKE1, ADDITIONAL]])

const espWants = (ciphers: readonly EspCipher[], groups: readonly number[]): Wants =>
  new Map([
    [TRANSFORM.number.ENCR, ciphers.map(cipherTransform)],
    ...(groups.length === 0 ? [] : ([[TRANSFORM.number.KE, groups.map(keTransform)]] as const)),
    [TRANSFORM.number.SN, SEQUENCE_TRANSFORMS],
  ])

/**
 * The first proposal of which we can take one transform of every type it names, and which names every type we
 * need. A type we have no use for is acceptable only with its NONE, which then is the choice: INTEG beside an
 * AEAD (RFC 5282 section 8), and additional key exchanges where there are none (RFC 9370 section 2.2.2).
 */
function pick<Suite>(
  offered: readonly Proposal[],
  protocol: number,
  spiLength: number,
  wants: Wants,
  suiteOf: (transforms: readonly Transform[]) => Suite,
  optional: Wants = NO_OPTIONS,
): Choice<Suite> | undefined {
  for (const proposal of offered) {
    if (proposal.protocol !== protocol || proposal.spi.length !== spiLength) continue
    const transforms = chooseTransforms(proposal.transforms, wants, optional)
    if (transforms !== undefined) return { suite: suiteOf(transforms), proposal: { ...proposal, transforms } }
  }
  return undefined
}

/** As `pick`. @throws PeerFault NO_PROPOSAL_CHOSEN */
function choose<Suite>(...args: Parameters<typeof pick<Suite>>): Choice<Suite> {
  const choice = pick(...args)
  if (choice === undefined) throw noneAcceptable(args[0])
  return choice
}

const noneAcceptable = (offered: readonly Proposal[]): PeerFault =>
  noProposal(`none of ${offered.length} proposals is acceptable`)

function chooseTransforms(
  offered: readonly Transform[],
  wants: Wants,
  optional: Wants,
): Transform[] | undefined {
  const types = new Set(wants.keys())
  for (const { type } of offered) types.add(type)
  const chosen: Transform[] = []
  for (const type of types) {
    const acceptable = wants.get(type) ?? [...(optional.get(type) ?? []), transform(type, NONE)]
    const best = acceptable.find((wanted) => offered.some((each) => sameTransform(each, wanted)))
    if (best === undefined) return undefined
    chosen.push(best)
  }
  return chosen
}

function acceptAnswer(ours: readonly Proposal[], answer: readonly Proposal[]): Proposal {
  const [proposal] = answer
  if (proposal === undefined || answer.length !== 1)
    throw noProposal(`the answer has ${answer.length} proposals`)
  const offer = ours.find(({ number }) => number === proposal.number)
  if (offer === undefined || offer.protocol !== proposal.protocol || proposal.spi.length !== offer.spi.length)
    throw noProposal('the answer is a proposal that was never offered')
  const types = new Set(offer.transforms.map(({ type }) => type))
  for (const chosen of proposal.transforms) {
    if (!types.delete(chosen.type) || !offer.transforms.some((each) => sameTransform(each, chosen)))
      throw noProposal(`the answer has a ${TRANSFORM.nameOf(chosen.type)} that was not offered`)
  }
  // RFC 7296 section 3.3.6: to choose NONE is also to leave the type out.
  for (const left of types)
    if (!offer.transforms.some(({ type, id }) => type === left && id === NONE))
      throw noProposal(`the answer has no ${TRANSFORM.nameOf(left)}`)
  return proposal
}

// ---------------------------------------------------------------------------------------------- transforms

function transform(type: number, id: number): Transform {
  return { type, id, attributes: [] }
}

function keTransform(group: number): Transform {
  return transform(TRANSFORM.number.KE, group)
}

function cipherTransform(cipher: EspCipher): Transform {
  const { transformId, keyBits } = ESP_CIPHERS[cipher]
  const attributes: TransformAttribute[] =
    keyBits === undefined ? [] : [{ type: KEY_LENGTH_ATTRIBUTE, value: keyBits }]
  return { type: TRANSFORM.number.ENCR, id: transformId, attributes }
}

/** Attributes count: a key length that is missing, doubled or odd makes another transform (RFC 7296 section 3.3.6). */
const sameTransform = (a: Transform, b: Transform): boolean =>
  a.type === b.type &&
  a.id === b.id &&
  a.attributes.length === b.attributes.length &&
  a.attributes.every(
    ({ type, value }, i) => type === b.attributes[i]!.type && value === b.attributes[i]!.value,
  )

function ikeSuite(transforms: readonly Transform[]): IkeSuite {
  const prf = PRFS.find(({ id }) => id === idOf(transforms, TRANSFORM.number.PRF))!
  const additional = optionalOf(transforms, TRANSFORM.number.ADDKE1)
  return {
    cipher: cipherOf(transforms),
    prf: prf.hash,
    prfLength: prf.length,
    group: idOf(transforms, TRANSFORM.number.KE),
    ...(additional === undefined ? {} : { additional }),
  }
}

function espSuite(transforms: readonly Transform[]): EspSuite {
  const esn = idOf(transforms, TRANSFORM.number.SN) === SEQUENCE_NUMBERS.number.EXTENDED
  const group = optionalOf(transforms, TRANSFORM.number.KE)
  const additional = optionalOf(transforms, TRANSFORM.number.ADDKE1)
  return {
    cipher: cipherOf(transforms),
    esn,
    ...(group === undefined ? {} : { group }),
    ...(additional === undefined ? {} : { additional }),
  }
}

const optionalOf = (transforms: readonly Transform[], type: number): number | undefined =>
  transforms.find((each) => each.type === type && each.id !== NONE)?.id

const idOf = (transforms: readonly Transform[], type: number): number =>
  transforms.find((each) => each.type === type)!.id

function cipherOf(transforms: readonly Transform[]): EspCipher {
  const encryption = transforms.find(({ type }) => type === TRANSFORM.number.ENCR)!
  return ESP_CIPHER_NAMES.find((cipher) => sameTransform(cipherTransform(cipher), encryption))!
}
