/**
 * Whose half-open IKE SAs these are, by neighbourhood: a relay whose clients they are, or a /24. When there is no room for
 * another, the neighbourhood that has most gives up its oldest, unless it is the newcomer's own: so nobody gets less than
 * an even share because somebody else asks for more, whatever addresses that one has.
 */
export class Shares<T> {
  readonly #groups = new Map<string, Set<T>>()
  #size = 0

  get size(): number {
    return this.#size
  }

  add(group: string, member: T): void {
    const members = this.#groups.get(group) ?? new Set()
    this.#groups.set(group, members)
    if (members.has(member)) return
    members.add(member)
    this.#size++
  }

  delete(group: string, member: T): void {
    const members = this.#groups.get(group)
    if (members?.delete(member) !== true) return
    this.#size--
    if (members.size === 0) this.#groups.delete(group)
  }

  /** Has nobody more than `group`, which has some? */
  hasMost(group: string): boolean {
    const own = this.#groups.get(group)?.size ?? 0
    if (own === 0) return false
    for (const members of this.#groups.values()) if (members.size > own) return false
    return true
  }

  /** Who has to go so that `group` may have one more; undefined: `group` has as much as anybody. */
  victimFor(group: string): T | undefined {
    let largest: ReadonlySet<T> | undefined
    for (const members of this.#groups.values())
      if (largest === undefined || members.size > largest.size) largest = members
    const own = this.#groups.get(group)?.size ?? 0
    if (largest === undefined || largest.size <= own + 1) return undefined
    const [oldest] = largest
    return oldest
  }
}
