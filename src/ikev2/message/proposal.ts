/**
 * What the SA payload holds: proposals, their transforms, and the attributes of those (RFC 7296 sections 3.3.1 to 3.3.5),
 * as values and as bytes, both ways. What they mean and which is chosen, `#ikev2/proposal` knows.
 *
 *     +---------------+---------------+-------------------------------+
 *     |  more follow  |   reserved    |        length of this         |
 *     +---------------+---------------+---------------+---------------+
 *     | proposal no.  |   protocol    |  octets of SPI|  transforms   |    SPI, transforms: of a proposal
 *     +---------------+---------------+---------------+---------------+
 *     |transform type |   reserved    |         transform id          |    attributes: of a transform
 *     +---------------+---------------+-------------------------------+
 *
 * The octet that says "more follow" and the count say the same as the lengths do; a contradiction is malformed.
 */
import type { Reader, Writer } from '#wire/cursor'

export interface Proposal {
  readonly number: number
  readonly protocol: number
  readonly spi: Uint8Array
  readonly transforms: readonly Transform[]
}

export interface Transform {
  readonly type: number
  readonly id: number
  readonly attributes: readonly TransformAttribute[]
}

/** In TV form the value is a number, in TLV form octets (RFC 7296 section 3.3.5). */
export interface TransformAttribute {
  readonly type: number
  readonly value: number | Uint8Array
}

// Implementation constants: no message of ours or of a sane peer comes near them.
const MAX_PROPOSALS = 32
const MAX_TRANSFORMS = 128

/** @throws DecodeError */
export function decodeProposals(body: Reader): Proposal[] {
  const proposals: Proposal[] = []
  for (let more = true; more; ) {
    if (proposals.length === MAX_PROPOSALS) body.fail(`more than ${MAX_PROPOSALS} proposals`)
    more = readMore(body, 2)
    body.skip(1)
    const length = body.u16()
    const proposal = body.sub(length - 4, `proposal ${proposals.length}`)
    const number = proposal.u8()
    const protocol = proposal.u8()
    const spiSize = proposal.u8()
    const count = proposal.u8()
    const spi = proposal.bytes(spiSize)
    if (count > MAX_TRANSFORMS) proposal.fail(`more than ${MAX_TRANSFORMS} transforms`)
    const transforms: Transform[] = []
    for (let i = 0; i < count; i++) {
      if (readMore(proposal, 3) !== i < count - 1) proposal.fail('transforms do not match their count')
      transforms.push(decodeTransform(proposal, i))
    }
    proposal.end()
    proposals.push({ number, protocol, spi, transforms })
  }
  return proposals
}

export function encodeProposals(writer: Writer, proposals: readonly Proposal[]): void {
  proposals.forEach((proposal, index) => {
    const start = writer.length
    writer
      .u8(index < proposals.length - 1 ? 2 : 0)
      .u8(0)
      .u16(0)
    writer.u8(proposal.number).u8(proposal.protocol).u8(proposal.spi.length).u8(proposal.transforms.length)
    writer.bytes(proposal.spi)
    proposal.transforms.forEach((transform, i) => {
      const at = writer.length
      writer
        .u8(i < proposal.transforms.length - 1 ? 3 : 0)
        .u8(0)
        .u16(0)
      writer.u8(transform.type).u8(0).u16(transform.id)
      for (const { type, value } of transform.attributes) {
        if (typeof value === 'number') writer.u16(0x8000 | type).u16(value)
        else writer.u16(type).u16(value.length).bytes(value)
      }
      writer.patch16(at + 2, writer.length - at)
    })
    writer.patch16(start + 2, writer.length - start)
  })
}

/** The first octet of a substructure: 0 for the last, else its type's number. */
function readMore(reader: Reader, expected: number): boolean {
  const value = reader.u8()
  if (value !== 0 && value !== expected) reader.fail(`substructure mark ${value}`)
  return value !== 0
}

function decodeTransform(proposal: Reader, index: number): Transform {
  proposal.skip(1)
  const length = proposal.u16()
  const transform = proposal.sub(length - 4, `transform ${index}`)
  const type = transform.u8()
  transform.skip(1)
  const id = transform.u16()
  const attributes: TransformAttribute[] = []
  while (transform.remaining > 0) {
    const format = transform.u16()
    const value = transform.u16()
    attributes.push(
      format & 0x8000 ? { type: format & 0x7fff, value } : { type: format, value: transform.bytes(value) },
    )
  }
  return { type, id, attributes }
}
