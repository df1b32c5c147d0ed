/**
 * What authorities say to each other: POST of votes, rolls and signatures, GET of what one of them said. Who sends a
 * request is known before its body is read, so strangers cannot make an authority read sixteen megabytes.
 */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { toHex } from '#base/bytes'
import { type Failure, failure } from '#base/result'
import type { MessageKind, Question } from '#directory/authority-events'
import { DOCUMENT_LIMITS } from '#directory/canonical'
import type { Council } from '#directory/council'
import type { Sender } from '#directory/http-signature'
import { messagePath } from '#directory/messenger'
import { refuse } from '#directory/refusal'
import { SCHEMAS } from '#directory/routes/schemas'

/** What is asked of one of several authorities. */
export type Seat = Pick<Council, 'counters' | 'senderOf' | 'hear' | 'answer'>

/** A document is never told: who lacks one asks. */
const TOLD: readonly MessageKind[] = ['vote', 'roll', 'signature']
const ASKED: readonly MessageKind[] = [...TOLD, 'consensus']

/** Requests of one authority at a time. */
const MOST_AT_ONCE = 8

/** 204 when a message was taken; 200 with a message that was asked for, 404 when there is none; else the named error. */
export function authorityRoutes(app: FastifyInstance, council: Seat): void {
  const senders = new WeakMap<FastifyRequest, Sender>()
  const busy = new Map<string, number>()
  const refused = (reply: FastifyReply, failed: Failure): FastifyReply => {
    council.counters.add(`refused.${failed.code}`)
    return refuse(reply, failed)
  }
  const onRequest = async (request: FastifyRequest, reply: FastifyReply): Promise<unknown> => {
    const { method, url, headers } = request
    const header = (name: string): string | undefined => {
      const value = headers[name]
      return typeof value === 'string' ? value : undefined
    }
    const head = { method: method as 'GET' | 'POST', path: url, header }
    const sender = council.senderOf(head)
    if (!sender.ok) return refused(reply, sender)
    const who = toHex(sender.value.key)
    const before = busy.get(who) ?? 0
    if (before >= MOST_AT_ONCE)
      return refused(reply, failure('IPP_DIR_RATE_LIMITED', 'requests of one authority at a time'))
    busy.set(who, before + 1)
    reply.raw.once('close', () => busy.set(who, (busy.get(who) ?? 1) - 1))
    senders.set(request, sender.value)
    return undefined
  }
  for (const kind of TOLD)
    app.post(
      messagePath(kind),
      { bodyLimit: DOCUMENT_LIMITS[kind].octets, onRequest, config: SCHEMAS.tell },
      async (request, reply) => {
        const document = Buffer.isBuffer(request.body) ? request.body : Buffer.alloc(0)
        if (senders.get(request)?.announced(document) !== true)
          return refused(reply, failure('IPP_DIR_BAD_SIGNATURE', 'request: another body was announced'))
        const heard = await council.hear(kind, document)
        return heard.ok ? reply.code(204).send() : refuse(reply, heard)
      },
    )
  for (const kind of ASKED)
    for (const url of [`${messagePath(kind)}/:period`, `${messagePath(kind)}/:period/:digest`])
      app.get(url, { onRequest, exposeHeadRoute: false, config: SCHEMAS.ask }, async (request, reply) => {
        const question = questionOf(kind, request.params as Record<string, string>)
        const text = question === undefined ? undefined : council.answer(question)
        // Who asks early asks often: nothing is wrong with that.
        if (text === undefined)
          return refuse(reply, failure('IPP_DIR_NO_RESOURCE', 'there is no such message'))
        return reply.header('cache-control', 'no-store').type('text/plain; charset=utf-8').send(text)
      })
}

function questionOf(kind: MessageKind, params: Record<string, string>): Question | undefined {
  const { period = '', digest } = params
  if (!/^[1-9][0-9]{0,14}$/.test(period)) return undefined
  if (digest !== undefined && !/^[0-9a-f]{64}$/.test(digest)) return undefined
  return { kind, period: Number(period), ...(digest === undefined ? {} : { digest }) }
}
