/**
 * Hands a document to several directories. One that wants work says how much; the work is done once for all of them,
 * in slices between which everything else of this process goes on, and shown to each as soon as it is enough.
 */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { type Result, success } from '#base/result'
import type { CryptoProvider } from '#crypto/provider'
import { type Reply, refusalOf, workAsked } from '#directory/exchange'
import { TOKEN_HEADER, tokenProof } from '#directory/token'
import { MOST_WORK, WORK_HEADER, WorkSearch } from '#directory/work'

export interface UploadOptions<Server> {
  readonly document: Uint8Array
  readonly servers: readonly Server[]
  readonly send: (server: Server, headers: Readonly<Record<string, string>>) => Promise<Result<Reply>>
  readonly nameOf: (server: Server) => string
  readonly crypto: CryptoProvider
  /** Of a directory's operator: who knows it wants no work. */
  readonly token?: Uint8Array
  /** Ends the work. */
  readonly signal?: AbortSignal
}

export interface Uploaded {
  /** The directory had these very bytes already. */
  readonly known: boolean
}

/** Hashes in a row, some two milliseconds. */
const SLICE = 2048
/** Of the tries that are needed on average; more are needed once in e^16 times. */
const PATIENCE = 16

/** One outcome per server. Errors: IPP_DIR_UNREACHABLE, and the refusals of directories by their code. */
export async function uploadTo<Server>(options: UploadOptions<Server>): Promise<Result<Uploaded>[]> {
  const { document, servers, send, nameOf, crypto, token } = options
  const plain = {
    'content-type': 'text/plain',
    ...(token === undefined ? {} : { [TOKEN_HEADER]: tokenProof(token, document, crypto) }),
  }
  const replies = await Promise.all(servers.map((server) => send(server, plain)))
  const outcomes = replies.map((reply, i) => outcomeOf(nameOf(servers[i]!), reply))
  const asked = replies
    .map((reply, i) => ({ i, bits: reply.ok ? workAsked(reply.value) : undefined }))
    .filter((one): one is { i: number; bits: number } => one.bits !== undefined)
    .sort((a, b) => a.bits - b.bits)
  const search = new WorkSearch(document, crypto)
  const again: Promise<void>[] = []
  for (const { i, bits } of asked) {
    const server = servers[i]!
    const nonce = await worked(search, bits, options.signal)
    if (nonce === undefined) break
    const headers = { ...plain, [WORK_HEADER]: nonce }
    again.push(
      send(server, headers).then((reply) => {
        outcomes[i] = outcomeOf(nameOf(server), reply)
      }),
    )
  }
  await Promise.all(again)
  return outcomes
}

/** Undefined: it is more than anybody does, it was ended, or luck was very bad. */
async function worked(
  search: WorkSearch,
  bits: number,
  signal: AbortSignal | undefined,
): Promise<string | undefined> {
  if (bits > MOST_WORK) return undefined
  for (let left = PATIENCE * 2 ** bits; left > 0 && signal?.aborted !== true; left -= SLICE) {
    const nonce = search.look(bits, SLICE)
    if (nonce !== undefined) return nonce
    await nextTurn()
  }
  return undefined
}

function outcomeOf(name: string, reply: Result<Reply>): Result<Uploaded> {
  if (!reply.ok) return reply
  const { status } = reply.value
  return status === 200 || status === 201 ? success({ known: status === 200 }) : refusalOf(name, reply.value)
}
