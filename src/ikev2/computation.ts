/**
 * What takes a responder long, as values: so that it can be done elsewhere, in a worker thread, while the engine goes on
 * with other peers.
 *
 * An answer that needs such work is a generator: it yields jobs and is resumed with their results. Nothing changes before
 * it has come to its end, so one whose IKE SA is gone meanwhile is dropped (`workshop.ts`). A job is a whole step and not
 * an operation of its own: half of what a handshake takes is asymmetric, and of the other half most are PRFs.
 */
import type { CryptoProvider, Encapsulation, HashName } from '#crypto/provider'
import type { IkeId, LocalCredential } from '#ikev2/events'
import { PeerFault } from '#ikev2/fault'
import { groupOf } from '#ikev2/groups'
import { firstSecrets, type IkeSecrets, type KeyLengths, prfOf } from '#ikev2/keys'
import { type AuthPayload, type Claim, type ProofContext, prove, verifyClaim } from '#ikev2/proof'

export type Job = KeysJob | EncapsulationJob | ProofsJob

/** IKE_SA_INIT: our half of the key exchange, and all keys. */
export interface KeysJob {
  readonly kind: 'keys'
  readonly group: number
  readonly peer: Uint8Array
  readonly hash: HashName
  readonly lengths: KeyLengths
  readonly ni: Uint8Array
  readonly nr: Uint8Array
  readonly spiInitiator: Uint8Array
  readonly spiResponder: Uint8Array
}

/** IKE_INTERMEDIATE: ML-KEM-768. */
export interface EncapsulationJob {
  readonly kind: 'encapsulation'
  readonly publicKey: Uint8Array
}

/** IKE_AUTH: is the initiator who it says, and if so, our signature. Whoever does this has our keys. */
export interface ProofsJob {
  readonly kind: 'proofs'
  readonly hash: HashName
  readonly context: Omit<ProofContext, 'prf'>
  readonly claim: Claim
  readonly id: IkeId
  readonly auth: AuthPayload
}

/** What each kind of job comes to. Undefined: the peer's value is of no use. */
export interface JobResults {
  readonly keys: { readonly publicKey: Uint8Array; readonly secrets: IkeSecrets } | undefined
  readonly encapsulation: Encapsulation | undefined
  /** Our AUTH, or why the peer is not believed. */
  readonly proofs: { readonly auth: AuthPayload } | { readonly fault: string }
}

export type JobResult = JobResults[Job['kind']]

export type Computation<T> = Generator<Job, T, JobResult>

/** With what a responder signs, and as whom. */
export type SigningCredential = LocalCredential & { readonly kind: 'ed25519' }

/** Yields a job and has its result. */
export function* compute<K extends Job['kind']>(job: Job & { readonly kind: K }): Computation<JobResults[K]> {
  return (yield job) as JobResults[K]
}

/** Does a job. Never throws for what a peer sent. */
export function perform(crypto: CryptoProvider, credential: SigningCredential, job: Job): JobResult {
  switch (job.kind) {
    case 'keys': {
      const answer = groupOf(job.group).answer(crypto, job.peer)
      if (answer === undefined) return undefined
      const secrets = firstSecrets(prfOf(crypto, job.hash), answer.sharedSecret, job, job.lengths)
      return { publicKey: answer.publicKey, secrets }
    }
    case 'encapsulation':
      return crypto.mlkem768Encapsulate(job.publicKey)
    case 'proofs':
      return performProofs(crypto, credential, job)
  }
}

/** Does every job of a computation on the spot. @throws whatever it throws */
export function finishNow<T>(
  crypto: CryptoProvider,
  credential: SigningCredential,
  computation: Computation<T>,
): T {
  let step = computation.next()
  while (step.done !== true) step = computation.next(perform(crypto, credential, step.value))
  return step.value
}

function performProofs(
  crypto: CryptoProvider,
  credential: SigningCredential,
  { hash, claim, id, auth, ...job }: ProofsJob,
): JobResults['proofs'] {
  const context = { ...job.context, prf: prfOf(crypto, hash) }
  try {
    verifyClaim(crypto, context, 'initiator', claim, id, auth)
    return { auth: prove(crypto, context, 'responder', credential, credential.id) }
  } catch (error) {
    // Every one of them is AUTHENTICATION_FAILED; a fault has no way of its own between threads.
    if (error instanceof PeerFault) return { fault: error.message }
    throw error
  }
}
