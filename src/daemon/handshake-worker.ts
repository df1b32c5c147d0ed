/** A thread of `HandshakeWorkers`: jobs come in batches, are done one after the other, and nothing stays. */
import { parentPort, workerData } from 'node:worker_threads'
import { wipeDeep } from '#base/bytes'
import { move } from '#daemon/move'
import { type Job, type JobResult, perform, type SigningCredential } from '#ikev2/computation'
import { nativeCrypto } from '#linux/native-crypto'

export interface HandshakeRequest {
  readonly id: number
  readonly job: Job
}

export interface HandshakeReply {
  readonly id: number
  readonly result: JobResult
}

const credential = workerData as SigningCredential
const crypto = nativeCrypto()

parentPort!.on('message', (requests: readonly HandshakeRequest[]) => {
  const replies = requests.map(({ id, job }) => {
    const result = perform(crypto, credential, job)
    wipeDeep(job)
    const moved = move<HandshakeReply>({ id, result })
    wipeDeep(result)
    return moved
  })
  parentPort!.postMessage(
    replies.map(({ value }) => value),
    replies.map(({ buffer }) => buffer),
  )
})
