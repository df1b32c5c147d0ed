/** Traffic that shares no circuit with other traffic of the same host: by who sends it, or where it goes. */
import type { Prefix } from '#base/ip'
import type { CircuitUse } from '#overlay/circuits'
import type { RuleSpec } from '#overlay/ports'

/** Which packets belong to a group. All that is said must hold; the first rule that fits decides. */
export interface IsolationRule {
  readonly name: string
  /** User id of the socket. */
  readonly user?: number
  /** Mark of the socket or the packet, as `SO_MARK` or a rule of the user's own set it, of a cgroup perhaps. */
  readonly mark?: number
  readonly destination?: Prefix
}

/** Absent rule: whatever belongs to no other group. */
export interface Group {
  readonly name: string
  /** From 1 in the order of the rules; 0: the default group. */
  readonly index: number
  readonly rule?: IsolationRule
}

export const DEFAULT_GROUP: Group = { name: 'default', index: 0 }

/** The default group first. */
export const groupsOf = (rules: readonly IsolationRule[] = []): readonly Group[] => [
  DEFAULT_GROUP,
  ...rules.map((rule, at) => ({ name: rule.name, index: at + 1, rule })),
]

/** What a circuit is for while a group has it. */
export const useOf = (group: Group): CircuitUse => (group === DEFAULT_GROUP ? 'default' : 'group')

/** Before the rule of the table `main`, 32766, and behind that of `local`, 0. */
const FIRST_RULE = 0x4950
/** Numbers of routing tables have 32 bits, and nobody else begins there. */
const FIRST_TABLE = 0x495000

/** Its routes: those of the default group are in the table `main`. */
export const tableOf = ({ index }: Group): number => FIRST_TABLE + index

/**
 * What leads the traffic of a group into its table. Two things come before its two halves of the address space:
 * hops behind the entry, which its own table has, too, and whatever else this host reaches by a route of its own, as it
 * does without groups: its own networks (which the packet filter closes), and the entry, for the layers of ESP, that carry
 * the mark of what is inside and belong to user 0.
 */
export function rulesOf(group: Group): RuleSpec[] {
  if (group.rule === undefined) return []
  const { name: _, ...traffic } = group.rule
  const priority = FIRST_RULE + 3 * (group.index - 1)
  const table = tableOf(group)
  return [
    { ...traffic, priority, table, longerThan: HALF },
    { ...traffic, priority: priority + 1, table: 'main', longerThan: HALF },
    { ...traffic, priority: priority + 2, table },
  ]
}

/** Prefix length of half of the address space. */
const HALF = 1
