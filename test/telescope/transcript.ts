/** Plane operations as the lines a reader of `ip xfrm` would expect. */
import { formatSpi } from '#base/ids'
import { formatPrefix } from '#base/ip'
import type { PlaneOperation, Selector, Template } from '#telescope/plane'
import { PRIORITY, reqId } from '#telescope/plane'

const PRIORITY_NAMES = new Map<number, string>(Object.entries(PRIORITY).map(([name, value]) => [value, name]))

export function transcript(operations: readonly PlaneOperation[]): string[] {
  return operations.map(line)
}

function line(operation: PlaneOperation): string {
  switch (operation.kind) {
    case 'sa.install': {
      const { sa } = operation
      return `+ sa ${sa.flow.padEnd(8)} ${sa.source} > ${sa.destination} spi ${formatSpi(sa.spi)} reqid ${number(sa.reqid)} ${sa.cipher}${sa.esn ? ' esn' : ''}`
    }
    case 'sa.remove':
      return `- sa          ${operation.sa.source} > ${operation.sa.destination} spi ${formatSpi(operation.sa.spi)}`
    case 'sa.move': {
      const { sa, to } = operation
      const ports = to.encapsulation
      const udp = ports === undefined ? '' : ` udp ${ports.sourcePort} > ${ports.destinationPort}`
      return `~ sa          ${sa.source} > ${sa.destination} spi ${formatSpi(sa.spi)} becomes ${to.source} > ${to.destination}${udp}`
    }
    case 'policy.install': {
      const { policy } = operation
      const templates = policy.templates.map(template).join(' in ')
      return `+ policy ${policy.direction.padEnd(3)} ${selector(policy.selector)}: ${policy.action} [${PRIORITY_NAMES.get(policy.priority)}]${templates && ` ${templates}`}`
    }
    case 'policy.remove':
      return `- policy ${operation.direction.padEnd(3)} ${selector(operation.selector)}`
  }
}

const number = (reqid: number): number => reqid - reqId(0)

const template = (t: Template): string => `(${t.source} > ${t.destination} reqid ${number(t.reqid)})`

function selector(s: Selector): string {
  const port = (value: number | undefined): string => (value === undefined ? '' : `:${value}`)
  const protocol = s.protocol === undefined ? '' : ` proto ${s.protocol}`
  const icmp = s.icmp === undefined ? '' : ` type ${s.icmp.type} code ${s.icmp.code}`
  return `${formatPrefix(s.source)}${port(s.sourcePort)} > ${formatPrefix(s.destination)}${port(s.destinationPort)}${protocol}${icmp}`
}
