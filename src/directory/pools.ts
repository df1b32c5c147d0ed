/** Which prefix a node gets: slots of one size, carved from the pool space. Pure. */
import { contains, ipToUint32, type Prefix, uint32ToIp } from '#base/ip'

export interface PoolPlan {
  /** All pools are carved from it, 10.64.0.0/10 unless the operator says otherwise. */
  readonly space: Prefix
  /** Prefix length of every pool: 20 is 4,096 addresses. */
  readonly length: number
}

/** How many nodes the plan has room for. */
export const slotCount = (plan: PoolPlan): number => 2 ** (plan.length - plan.space.length)

/** Was this pool carved by this plan? Pools that were are disjoint unless they are equal. */
export const fitsPlan = (plan: PoolPlan, pool: Prefix): boolean =>
  pool.length === plan.length && contains(plan.space, pool.address)

/** The lowest slot nobody has, or undefined when all are taken. `taken` must fit the plan. */
export const freePool = (plan: PoolPlan, taken: Iterable<Prefix>): Prefix | undefined =>
  freePools(plan, taken, 1)[0]

/** The lowest slots nobody has, as many as there are up to `count`. `taken` must fit the plan. */
export function freePools(plan: PoolPlan, taken: Iterable<Prefix>, count: number): Prefix[] {
  const first = ipToUint32(plan.space.address)
  const size = 2 ** (32 - plan.length)
  const used = new Set<number>()
  for (const pool of taken) used.add((ipToUint32(pool.address) - first) / size)
  const free: Prefix[] = []
  for (let slot = 0; slot < slotCount(plan) && free.length < count; slot++)
    if (!used.has(slot)) free.push({ address: uint32ToIp(first + slot * size), length: plan.length })
  return free
}
