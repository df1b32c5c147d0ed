/** docs/openapi.json: the whole HTTP interface of a directory, of a server that serves nobody. */
import { failure } from '#base/result'
import { instant, unixTime } from '#base/time'
import { nodeCrypto } from '#crypto/node'
import { Counters } from '#directory/counters'
import { createDirectoryServer } from '#directory/server'
import { Shelf } from '#directory/shelf'

export async function explainInterface(): Promise<string> {
  const counters = new Counters()
  const nothing = failure('IPP_DIR_NO_RESOURCE', 'nothing')
  const quiet = (): void => undefined
  const app = createDirectoryServer({
    service: {
      counters,
      shelf: new Shelf(nodeCrypto),
      publication: undefined,
      problem: undefined,
      accept: async () => nothing,
    },
    council: { counters, senderOf: () => nothing, hear: async () => nothing, answer: () => undefined },
    clock: { unixTime: () => unixTime(0), monotonic: () => instant(0) },
    log: { debug: quiet, info: quiet, warn: quiet, error: quiet },
    outlook: () => undefined,
  })
  try {
    const reply = await app.inject({ url: '/openapi.json' })
    return `${JSON.stringify(reply.json(), null, 2)}\n`
  } finally {
    await app.close()
  }
}
