/** `isolation` of a client: which traffic has circuits of its own. */
import { type Prefix, parsePrefix } from '#base/ip'
import type { Locator, Problem } from '#config/validate'
import { DAEMON_MARK } from '#nat/rules'

/** At least one of user, mark and destination; all of them must hold. */
export interface IsolationConfig {
  readonly name: string
  readonly user?: number
  readonly mark?: number
  readonly destination?: Prefix
}

interface IsolationFile {
  readonly name: string
  readonly user?: number
  readonly mark?: number
  readonly destination?: string
}

/** Of a file whose values are acceptable each by itself. */
export function isolationProblem(
  rules: readonly IsolationFile[],
  onDemand: boolean,
  at: Locator,
): Problem | undefined {
  if (rules.length > 0 && onDemand)
    return at(['isolation'], 'no groups with circuit.onDemand, which builds no circuit by itself', 'some')
  const names = new Set([DEFAULT])
  for (const [index, { name, user, mark, destination }] of rules.entries()) {
    const place = ['isolation', index]
    if (names.has(name))
      return at([...place, 'name'], `every name once, and not \`${DEFAULT}\``, `${name} again`)
    names.add(name)
    if (user === undefined && mark === undefined && destination === undefined)
      return at(place, 'at least one of user, mark and destination', 'none')
    if (mark === DAEMON_MARK)
      return at([...place, 'mark'], 'another mark than that of this client', `${mark}`)
  }
  return undefined
}

export const isolationOf = (rules: readonly IsolationFile[]): readonly IsolationConfig[] =>
  rules.map(({ destination, ...rule }) =>
    destination === undefined ? rule : { ...rule, destination: parsePrefix(destination)! },
  )

/** What belongs to no group of the file. */
const DEFAULT = 'default'
