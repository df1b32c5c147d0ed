import { contains, type Ip, uint32ToIp } from '#base/ip'
import type { PolicySpec } from '#telescope/plane'
import type { Flow } from '#telescope/spd'

/** The readable twin of `PolicyTable`: a list, and the first policy of the lowest priority that matches. */
export class LinearSpd {
  #policies: PolicySpec[] = []

  install(policy: PolicySpec): void {
    const at = this.#policies.findIndex((other) => sameSelector(other, policy))
    if (at < 0) this.#policies.push(policy)
    else this.#policies[at] = policy
  }

  remove(policy: PolicySpec): void {
    this.#policies = this.#policies.filter((other) => !sameSelector(other, policy))
  }

  lookup(flow: Flow): PolicySpec | undefined {
    return this.#policies
      .filter((policy) => matches(policy, flow))
      .reduce<PolicySpec | undefined>(
        (best, policy) => (best === undefined || policy.priority < best.priority ? policy : best),
        undefined,
      )
  }
}

function matches({ selector: s }: PolicySpec, flow: Flow): boolean {
  const address = (value: number): Ip => uint32ToIp(value >>> 0)
  return (
    contains(s.source, address(flow.source)) &&
    contains(s.destination, address(flow.destination)) &&
    (s.protocol ?? flow.protocol) === flow.protocol &&
    (s.sourcePort ?? flow.sourcePort) === flow.sourcePort &&
    (s.destinationPort ?? flow.destinationPort) === flow.destinationPort
  )
}

const sameSelector = (a: PolicySpec, b: PolicySpec): boolean =>
  JSON.stringify(selectorValues(a)) === JSON.stringify(selectorValues(b))

const selectorValues = ({ selector: s }: PolicySpec) => [
  s.source.address,
  s.source.length,
  s.destination.address,
  s.destination.length,
  s.protocol ?? null,
  s.sourcePort ?? null,
  s.destinationPort ?? null,
]
