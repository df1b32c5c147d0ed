/** Authorities whose calendar runs three thousand times too fast: a period of an hour takes 1.2 s. */
import { join } from 'node:path'
import { instant, unixTime } from '#base/time'
import { openAuthorityStore } from '#directory/authority-store'
import { Council } from '#directory/council'
import type { Member } from '#directory/minutes'
import { createDirectoryServer } from '#directory/server'
import type { DirectoryClock } from '#directory/service'
import { AUTHORITIES, TERMS } from './authorities.ts'
import { crypto, SILENT, START } from './network.ts'

const SPEED = 3000

/** `epoch`: when it was START, in milliseconds since 1970. */
export const hastyClock = (epoch: number): DirectoryClock => ({
  unixTime: () => unixTime(START + ((Date.now() - epoch) / 1000) * SPEED),
  monotonic: () => instant(performance.now()),
})

export const hastyMembers = (ports: readonly number[]): Member[] =>
  ports.map((port, i) => ({
    name: `n${i}`,
    key: AUTHORITIES[i]!.publicKey,
    url: `http://127.0.0.1:${port}`,
  }))

/** One of three, of whom two must sign. Returns what ends it. */
export async function startHasty(
  who: number,
  ports: readonly number[],
  folder: string,
  epoch: number,
): Promise<{ readonly council: Council; readonly close: () => Promise<void> }> {
  const store = await openAuthorityStore(join(folder, `n${who}`), crypto)
  const clock = hastyClock(epoch)
  const base = { crypto, clock, log: SILENT }
  const members = hastyMembers(ports)
  const council = await Council.open({
    ...base,
    store,
    key: AUTHORITIES[who]!,
    members,
    threshold: 2,
    terms: TERMS,
  })
  const generous = { burst: 1_000_000, perSecond: 1 }
  const limits = { uploads: generous, reads: generous, messages: generous }
  const app = createDirectoryServer({ ...base, service: council, council, uploads: 'anywhere', limits })
  await app.listen({ host: '127.0.0.1', port: ports[who]! })
  let ended = false
  const turn = async (): Promise<void> => {
    await council.tick()
    if (!ended) setTimeout(turn, 15)
  }
  void turn()
  return {
    council,
    close: async () => {
      ended = true
      await app.close()
      await council.close()
      await store.close()
    },
  }
}
