/** Numbers and moments for people. */
import { spanText } from '#base/span'
import type { UnixTime } from '#base/time'

/** `2026-01-01 00:00:00 UTC` */
export const momentText = (at: number): string =>
  `${new Date(at * 1000).toISOString().slice(0, 19).replace('T', ' ')} UTC`

/** For the attribute of `<time>`. */
export const momentIso = (at: number): string => new Date(at * 1000).toISOString().replace('.000Z', 'Z')

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
