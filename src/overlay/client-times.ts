/** How long a client waits for what (`client.ts`). */
import { type Duration, HOUR, SECOND } from '#base/time'
import type { Lifetimes } from '#ikev2/events'

export const REBUILD_FIRST: Duration = 1 * SECOND
export const REBUILD_MAX: Duration = 30 * SECOND
/** How long a hop may take to answer before its circuit is given up. */
export const HOP_PATIENCE: Duration = 10 * SECOND
/**
 * Liveness of the innermost hop proves all below, so no other is asked. A fixed schedule, the same for every client and
 * whatever its user does, so that it says no more than that the circuit exists.
 */
export const LIVENESS: Duration = 30 * SECOND
/** Every layer draws its own moments around these. Nodes keep theirs for longer, so that the client speaks first. */
export const LIFETIMES: Lifetimes = { child: HOUR, ike: 4 * HOUR }
/** A stop waits this long for nodes to confirm deletion. */
export const STOP_PATIENCE: Duration = 2 * SECOND
export const GUARD_FIRST: Duration = 1 * SECOND
export const GUARD_MAX: Duration = 60 * SECOND
