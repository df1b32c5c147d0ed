/**
 * Logs like those of the study on caching IKE: 30 days of a campus VPN, for its wireless network and for users at
 * home. Its table II gives totals, which come out exactly or nearly; its figures 3 to 5 give shapes: many connections
 * shorter than 5 minutes and most of 10 minutes to 3 hours, most under a mebibyte, most users more than once.
 *
 * What was not published is our choice: connections of a user come in days, a few in a row with pauses between.
 * Volume does not depend on duration.
 */
import type { Connection } from '#study/log'

export interface Population {
  readonly users: number
  readonly connections: number
  /** Hours. */
  readonly meanDuration: number
  /** Mebibytes, in and out. */
  readonly meanVolume: number
}

export const POPULATIONS = {
  wireless: { users: 11_250, connections: 149_564, meanDuration: 1.05, meanVolume: 3.09 + 6.91 },
  remote: { users: 15_579, connections: 241_291, meanDuration: 3.14, meanVolume: 8.52 + 20.82 },
} as const satisfies Record<string, Population>

export type PopulationName = keyof typeof POPULATIONS

const MEBIBYTE = 2 ** 20
const HOUR = 3600
const DAY = 24 * HOUR
const DAYS = 30
/** 2006-08-19T00:00:00Z. */
const ORIGIN = 1_155_945_600

/** Of the logarithms. */
const VISITS_SPREAD = 1.2
const DURATION_SPREAD = 1.5
const VOLUME_SPREAD = 2.8
/** Connections that are over almost at once. */
const SHORT_SHARE = 0.25
const SHORT: readonly [number, number] = [10, 300]
/** On a day on which somebody is there. */
const MEAN_VISITS_PER_DAY = 2.5
const MEDIAN_PAUSE = 40 * 60
const PAUSE_SPREAD = 1

/** A log with the users of `population` scaled by `scale`; the same for the same seed. Ordered by start. */
export function generateLog(population: Population, seed: number, scale = 1): Connection[] {
  const random = generator(seed)
  const users = Math.max(1, Math.round(population.users * scale))
  const visits = visitsOf(users, Math.max(users, Math.round(population.connections * scale)), random)
  const total = visits.reduce((sum, count) => sum + count, 0)
  const durations = scaled(
    Array.from({ length: total }, () =>
      random.uniform() < SHORT_SHARE
        ? SHORT[0] * (SHORT[1] / SHORT[0]) ** random.uniform()
        : HOUR * Math.exp(DURATION_SPREAD * random.normal()),
    ),
    population.meanDuration * HOUR,
  )
  const volumes = scaled(
    Array.from({ length: total }, () => Math.exp(VOLUME_SPREAD * random.normal())),
    population.meanVolume * MEBIBYTE,
  )
  let next = 0
  const log = visits.flatMap((count, user) =>
    starts(durations.slice(next, next + count), random).map((start) => {
      const at = next++
      return {
        user: `u${user + 1}`,
        start: ORIGIN + Math.round(start),
        end: ORIGIN + Math.round(start + durations[at]!),
        bytes: Math.round(volumes[at]!),
      }
    }),
  )
  return log.sort((a, b) => a.start - b.start)
}

/** How often each user comes: at least once, and `total` together. */
function visitsOf(users: number, total: number, random: Random): number[] {
  const weights = Array.from({ length: users }, () => Math.exp(VISITS_SPREAD * random.normal()))
  const sum = weights.reduce((a, b) => a + b, 0)
  const visits = weights.map((weight) => 1 + Math.floor(((total - users) * weight) / sum))
  // What rounding left over goes to whoever is first: one each.
  const missing = total - visits.reduce((a, b) => a + b, 0)
  for (let i = 0; i < missing; i++) visits[i % users]!++
  return visits
}

/** When the connections of one user begin, one after the other. */
function starts(durations: readonly number[], random: Random): number[] {
  const found: number[] = []
  const days = Math.max(1, Math.round(durations.length / MEAN_VISITS_PER_DAY))
  const presence = Array.from({ length: days }, () => Math.floor(random.uniform() * DAYS)).sort(
    (a, b) => a - b,
  )
  let free = 0
  for (const [index, duration] of durations.entries()) {
    const day = presence[Math.floor((index * days) / durations.length)]!
    // From eight in the morning to midnight.
    const morning = day * DAY + (8 + 8 * random.uniform()) * HOUR
    const pause = MEDIAN_PAUSE * Math.exp(PAUSE_SPREAD * random.normal())
    const start = Math.max(morning, free === 0 ? 0 : free + pause)
    found.push(start)
    free = start + duration
  }
  return found
}

function scaled(values: readonly number[], mean: number): number[] {
  const factor = (mean * values.length) / values.reduce((a, b) => a + b, 0)
  return values.map((value) => value * factor)
}

interface Random {
  /** In [0, 1). */
  uniform(): number
  normal(): number
}

/** mulberry32: the same numbers for the same seed. */
function generator(seed: number): Random {
  let state = seed >>> 0
  const uniform = (): number => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 0x1_0000_0000
  }
  // Box and Muller.
  const normal = (): number => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform())
  return { uniform, normal }
}
