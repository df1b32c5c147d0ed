/** What the routes take and give, for docs/openapi.json. Documents are read by their own decoders, never by these. */
import { Type } from 'typebox'

const ErrorBody = Type.Object(
  {
    error: Type.Object({
      code: Type.String({ description: 'docs/errors.md' }),
      message: Type.String(),
      work: Type.Optional(
        Type.Integer({ description: 'With IPP_DIR_WORK: zero bits that the work must have.' }),
      ),
    }),
  },
  { description: 'A refusal by name. Nothing was stored.' },
)

/** One description for each status, whoever answers it. */
const errors = (...statuses: readonly (keyof typeof REASONS)[]) =>
  Object.fromEntries(statuses.map((status) => [status, { $ref: `#/components/responses/${status}` }]))

const REASONS = {
  400: 'It is malformed.',
  403: 'A signature or a source address does not fit, or work is wanted.',
  404: 'There is no such thing.',
  409: 'It contradicts what is known, or there are enough of its kind.',
  413: 'It is too large.',
  422: 'It is too old, or from the future.',
  429: 'Too many requests; Retry-After says when to come again.',
  503: 'The directory cannot do it now.',
} as const

/** What `errors` refers to. */
export const ERROR_RESPONSES = Object.fromEntries(
  Object.entries(REASONS).map(([status, description]) => [
    status,
    { description, content: { 'application/json': { schema: ErrorBody } } },
  ]),
)

const text = (description: string, type = 'text/plain') => ({
  description,
  content: { [type]: { schema: Type.String() } },
})

const page = (summary: string, more: object = {}) => ({
  tags: ['page'],
  summary,
  response: { 200: text('For people. It runs no script.', 'text/html'), ...errors(404, 429) },
  ...more,
})

const Moment = Type.Integer({ description: 'Seconds since 1970.' })
const HealthBody = Type.Object({
  status: Type.Union([Type.Literal('ok'), Type.Literal('failing')]),
  problem: Type.Optional(Type.String()),
  serial: Type.Optional(Type.Integer()),
  nodes: Type.Optional(Type.Integer()),
  now: Moment,
  validAfter: Type.Optional(Moment),
  freshUntil: Type.Optional(Moment),
  validUntil: Type.Optional(Moment),
})

const Hex = (description: string) => Type.String({ pattern: '^[0-9a-f]{64}$', description })
const Period = Type.Integer({
  minimum: 1,
  description: 'Number of the period: valid-after divided by its length.',
})

export const SCHEMAS = {
  descriptor: {
    tags: ['documents'],
    summary: 'A node publishes its signed descriptor',
    description:
      'At most 8 KiB, from the address the descriptor names. docs/directory.md says who is taken in, and who must work for it.',
    headers: Type.Object({
      'ippriv-work': Type.Optional(
        Type.String({
          pattern: '^[0-9a-f]{16}$',
          description: 'A nonce: proof of work over the body (src/directory/work.ts).',
        }),
      ),
      'ippriv-token': Type.Optional(
        Type.String({
          pattern: '^[0-9a-f]{16}:[0-9a-f]{64}$',
          description: 'Proof that the sender has a token of the operator (src/directory/token.ts).',
        }),
      ),
    }),
    body: {
      description: 'The signed descriptor.',
      content: { 'text/plain': { schema: Type.String({ maxLength: 8192 }) } },
    },
    response: {
      200: {
        description: 'These very bytes were known.',
        content: {
          'application/json': {
            schema: Type.Object({
              nodeId: Hex('SHA-256 of the identity key.'),
              result: Type.Literal('known'),
            }),
          },
        },
      },
      201: {
        description: 'It is on disk.',
        content: {
          'application/json': {
            schema: Type.Object({
              nodeId: Hex('SHA-256 of the identity key.'),
              result: Type.Literal('accepted'),
            }),
          },
        },
      },
      ...errors(400, 403, 409, 413, 422, 429, 503),
    },
  },
  consensus: {
    tags: ['documents'],
    summary: 'The signed consensus, the same bytes for everybody',
    description: 'With Accept-Encoding br or gzip compressed; with If-None-Match conditional.',
    response: {
      200: text('The document.'),
      304: { description: 'It is the one that If-None-Match names.' },
      ...errors(429, 503),
    },
  },
  bootstrap: {
    tags: ['documents'],
    summary: 'Who the authorities are, and were: the chain of bootstrap documents',
    response: { 200: text('The chain, the oldest first.'), ...errors(404, 429) },
  },
  diff: {
    tags: ['documents'],
    summary: 'How to get from another document to the current one',
    params: Type.Object({
      base: Type.String({ description: 'Name of the document at hand: SHA-256 of its body, hex.' }),
    }),
    response: {
      200: text('The difference.'),
      304: { description: 'It is the current one.' },
      ...errors(404, 429, 503),
    },
  },
  health: {
    tags: ['operation'],
    summary: 'Is there a valid document, and can a new one be made?',
    response: {
      200: { description: 'Yes.', content: { 'application/json': { schema: HealthBody } } },
      503: { description: 'No; problem says why.', content: { 'application/json': { schema: HealthBody } } },
      ...errors(429),
    },
  },
  openapi: {
    tags: ['operation'],
    summary: 'This description',
    response: {
      200: { description: 'OpenAPI 3.1.', content: { 'application/json': { schema: Type.Object({}) } } },
    },
  },
  tell: {
    tags: ['authorities'],
    summary: 'Another authority hands in a vote, a roll or a signature',
    description:
      'Signed by RFC 9421 with the key of a pinned authority; who it is is known before the body is read.',
    body: { description: 'The signed message.', content: { 'text/plain': { schema: Type.String() } } },
    response: { 204: { description: 'It was taken.' }, ...errors(400, 403, 413, 422, 429, 503) },
  },
  ask: {
    tags: ['authorities'],
    summary: 'Another authority asks for what this one said',
    description:
      'Signed by RFC 9421 with the key of a pinned authority. With a digest: this vote, whoever wrote it.',
    params: Type.Object({ period: Period, digest: Type.Optional(Hex('SHA-256 of a vote.')) }),
    response: { 200: text('The signed message.'), ...errors(403, 404, 429) },
  },
  network: page('The network at a glance'),
  nodes: page('All nodes, or those that were searched for', {
    querystring: Type.Object({
      q: Type.Optional(
        Type.String({
          maxLength: 64,
          description: 'Part of a name, or the start of an address, pool or id.',
        }),
      ),
      flag: Type.Optional(Type.String()),
      sort: Type.Optional(Type.String()),
      order: Type.Optional(Type.String()),
      page: Type.Optional(Type.Integer({ minimum: 1 })),
    }),
  }),
  node: page('One node', {
    params: Type.Object({ id: Type.String({ description: 'Its id, or its name.' }) }),
  }),
  consensusHealth: page('How the document came about, and what is wrong since when'),
  icon: {
    tags: ['page'],
    summary: 'The icon of the page',
    response: { 200: text('A picture.', 'image/svg+xml') },
  },
} as const
