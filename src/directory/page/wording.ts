/** Numbers and moments for people. */
import type { UnixTime } from '#base/time'

/** `2026-01-01 00:00:00 UTC` */
export const momentText = (at: number): string =>
  `${new Date(at * 1000).toISOString().slice(0, 19).replace('T', ' ')} UTC`

/** For the attribute of `<time>`. */
export const momentIso = (at: number): string => new Date(at * 1000).toISOString().replace('.000Z', 'Z')

/** `3 h 20 min`: two units at most, and none that is nought. */
export function spanText(seconds: number): string {
  let rest = Math.max(0, Math.floor(seconds))
  const parts: string[] = []
  for (const [unit, length] of SPANS) {
    const count = Math.floor(rest / length)
    rest -= count * length
    if (count > 0) parts.push(`${count} ${unit}`)
    else if (parts.length > 0) break
    if (parts.length === 2) break
  }
  return parts.join(' ') || '0 s'
}

const SPANS = [
  ['d', 86_400],
  ['h', 3600],
  ['min', 60],
  ['s', 1],
] as const

/** `in 3 h 20 min`, `2 min ago` */
export const distanceText = (at: number, now: UnixTime): string =>
  at > now ? `in ${spanText(at - now)}` : `${spanText(now - at)} ago`

/** `3 h ago`: the largest unit is enough. */
export const agoText = (at: number, now: UnixTime): string =>
  at > now
    ? 'just now'
    : `${spanText(now - at)
        .split(' ')
        .slice(0, 2)
        .join(' ')} ago`

/** Of bits per second: `940 Mbit/s`. */
export function rateText(bits: number): string {
  let value = bits
  let unit = 0
  for (; value >= 1000 && unit < RATES.length - 1; unit++) value /= 1000
  return `${value >= 100 || unit === 0 ? Math.round(value) : value.toFixed(1)} ${RATES[unit]}`
}

const RATES = ['bit/s', 'kbit/s', 'Mbit/s', 'Gbit/s', 'Tbit/s'] as const

/** `12.3 kB` */
export function sizeText(octets: number): string {
  if (octets < 1000) return `${octets} B`
  return octets < 1_000_000 ? `${(octets / 1000).toFixed(1)} kB` : `${(octets / 1_000_000).toFixed(1)} MB`
}

/** `1,234` */
export const countText = (count: number): string => String(count).replace(/\B(?=(\d{3})+$)/g, ',')

/** Enough of an id or key to tell it from others at a glance. */
export const shortKey = (hex: string): string => `${hex.slice(0, 8)}…`
