/** The tables of the engine as text for people: docs/ikev2.md is this, and a test keeps it so. */
import { GAUGES, REFUSALS, TALLIES } from '#ikev2/counters'
import { faultOfNotify } from '#ikev2/fault'
import { ANYWHERE, CONTENTS, type Contents } from '#ikev2/message/registry'
import { EXCHANGE, NOTIFY } from '#ikev2/numbers'
import { STANDARDS } from '#ikev2/standards'
import { type IkeState, type IkeStep, REQUESTS, TRANSITIONS } from '#ikev2/transitions'

/** The whole of docs/ikev2.md. */
export function explainIke(): string {
  return `# The IKEv2 engine in tables

Generated from the tables the engine runs on (\`src/ikev2/transitions.ts\`, \`src/ikev2/message/registry.ts\`,
\`src/ikev2/fault.ts\`, \`src/ikev2/counters.ts\`) and from \`src/ikev2/standards.ts\`; change them there and run
\`node src/config/write-docs.ts\`.

## Standards

${table(['standard', 'what', 'starts in', 'left out'], standardRows())}

## States of an IKE SA

What is not listed does not happen: a step without a row is a defect of ours and stops the program, a request without
a row is dropped unanswered and counted as \`illegal-exchange\`.

${table(['state', 'step', 'next state'], transitionRows())}

## Which exchange a peer may begin

${table(['state', 'requests'], requestRows())}

## Which payload is legal where

${ANYWHERE_NAMES} may stand in every message. A message with a payload that has no row, or with another number of
them, is malformed.

${table(['exchange', 'message', 'exactly one', 'at most one', 'any number'], contentRows())}

CERTREQ and CERT matter in encoding 15 alone, a raw public key (\`src/ikev2/raw-key.ts\`): a node shows its key to a peer
that asks, a client has none to show, and neither ever asks. A key that is shown must be the one that is pinned.

## What an error of the peer means

An error in a message that is not protected is a hint: the wait for a better answer becomes short, nothing else.

${table(['notify', 'number', 'code'], errorRows())}

## What is counted

Something of a peer was refused or ignored. It cost that peer its message or its IKE SA, and nobody else anything:

${table(['refusal', 'why'], counterRows(REFUSALS))}

What went on:

${table(['counter', 'of what'], counterRows(TALLIES))}

What there is now:

${table(['gauge', 'of what'], counterRows(GAUGES))}
`
}

const table = (head: readonly string[], rows: readonly (readonly string[])[]): string =>
  [head, head.map(() => '---'), ...rows].map((row) => `| ${row.join(' | ')} |`).join('\n')

const ANYWHERE_NAMES = [...ANYWHERE].join(', ')
const NONE = 'none'

const standardRows = (): string[][] =>
  STANDARDS.map(({ name, what, where, leftOut = '' }) => [name, what, where && `\`${where}\``, leftOut])

function transitionRows(): string[][] {
  return Object.entries(TRANSITIONS).flatMap(([state, steps]) => {
    const rows = Object.entries(steps) as [IkeStep, IkeState][]
    return rows.length === 0 ? [[state, NONE, '']] : rows.map(([step, to]) => [state, step, to])
  })
}

const requestRows = (): string[][] =>
  Object.entries(REQUESTS).map(([state, exchanges]) => [
    state,
    exchanges.map((exchange) => EXCHANGE.nameOf(exchange)).join(', ') || NONE,
  ])

const contentRows = (): string[][] =>
  Object.entries(CONTENTS).flatMap(([exchange, { request, response }]) => [
    contentRow(exchange, 'request', request),
    contentRow(exchange, 'response', response),
  ])

function contentRow(exchange: string, message: string, contents: Contents): string[] {
  const cell = (count: string): string =>
    Object.entries(contents)
      .filter(([, allowed]) => allowed === count)
      .map(([kind]) => kind)
      .join(' ')
  return [EXCHANGE.nameOf(Number(exchange)), message, ...['one', 'at most one', 'any'].map(cell)]
}

const errorRows = (): string[][] =>
  Object.entries(NOTIFY.number)
    .filter(([, type]) => type < NOTIFY.number.INITIAL_CONTACT)
    .map(([name, type]) => [name, `${type}`, `\`${faultOfNotify(type).code}\``])

const counterRows = (meanings: Readonly<Record<string, string>>): string[][] =>
  Object.entries(meanings).map(([name, meaning]) => [`\`${name}\``, meaning])
