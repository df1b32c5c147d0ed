/** How long a node waits for what (`router.ts`). */
import { type Duration, HOUR, MINUTE, SECOND } from '#base/time'
import type { Lifetimes } from '#ikev2/events'

/** Anonymous clients vanish silently; longer than a client's own check, so that the client speaks first. */
export const CLIENT_LIVENESS: Duration = 2 * MINUTE
export const PEER_LIVENESS: Duration = 30 * SECOND
/** Of an overlay tunnel, for the node that began it. */
export const LIFETIMES: Lifetimes = { child: HOUR, ike: 4 * HOUR }
/** What others began, they renew: we would only after so many times that. */
export const RESPONDER_FACTOR = 2
export const RETRY_FIRST: Duration = 500
export const RETRY_SPREAD: Duration = 300
export const RETRY_LATER: Duration = 2 * SECOND
/** How long the peer with the higher node id waits for the other to begin. */
export const TAKE_OVER: Duration = 4 * SECOND
/** A tunnel that the other node begins this soon after ours is up was begun at once with ours: nobody restarts so fast. */
export const CROSSING: Duration = 3 * SECOND
/** A peer that leaves a request unanswered for this long is gone. */
export const PEER_PATIENCE: Duration = 30 * SECOND
/** What nobody can be asked about, goes on until nothing came for this: as long as a node waits for clients it can ask. */
export const UNHEARD: Duration = 2 * MINUTE
/** A peer that answers no IKE may be a kernel whose program is away: its SAs stay, no longer than keys are used otherwise. */
export const ADRIFT: Duration = HOUR
/** For packets that are on their way in the tunnel of before. */
export const TUNNEL_GRACE: Duration = 5 * SECOND
export const STOP_PATIENCE: Duration = 1 * SECOND
/** A link that could not be installed is taken away, and tried anew after this. */
export const LINK_RETRY: Duration = 10 * SECOND
export const GUARD_FIRST: Duration = 1 * SECOND
export const GUARD_MAX: Duration = 60 * SECOND
