/**
 * Checks a YAML document against one of our schemas. The walk is over the YAML nodes, not over the values,
 * so that every problem knows its line and column.
 */
import {
  isAlias,
  isMap,
  isScalar,
  isSeq,
  type LineCounter,
  type Node,
  type YAMLMap,
  type YAMLSeq,
} from 'yaml'
import { FORMATS, type FormatName } from '#config/formats'

export interface Problem {
  /** Counted from 1; of the value, or of the mapping that lacks a key. */
  readonly line: number
  readonly column: number
  /** `circuit.hops`, `roles[1]`; empty for the whole file. */
  readonly key: string
  readonly expected: string
  readonly found: string
  /** A key that was probably meant. */
  readonly hint?: string
}

/** A problem at a place of the file: what was expected there, and what was found. */
export type Locator = (path: readonly (string | number)[], expected: string, found: string) => Problem

/** `3:5: circuit.hops: expected an integer 1..5, found 9` */
export function formatProblem(problem: Problem): string {
  const { line, column, key, expected, found, hint } = problem
  const what = `${key === '' ? '' : `${key}: `}expected ${expected}, found ${found}`
  return `${line}:${column}: ${what}${hint === undefined ? '' : ` (did you mean ${hint}?)`}`
}

/** The part of JSON Schema that `schema.ts` uses. */
export interface Schema {
  readonly type?: string
  readonly expected?: string
  readonly description?: string
  readonly default?: unknown
  readonly examples?: readonly unknown[]
  readonly properties?: Readonly<Record<string, Schema>>
  readonly required?: readonly string[]
  readonly items?: Schema
  readonly enum?: readonly unknown[]
  readonly pattern?: string
  readonly format?: string
  readonly minLength?: number
  readonly minimum?: number
  readonly maximum?: number
  readonly minItems?: number
  readonly maxItems?: number
  readonly uniqueItems?: boolean
}

/** Every problem of the document, in order of appearance. */
export function validate(root: Node | null, schema: Schema, lines: LineCounter): Problem[] {
  const problems: Problem[] = []
  const walk = new Walk(lines, problems)
  if (root === null)
    problems.push({ line: 1, column: 1, key: '', expected: 'a mapping of keys', found: 'an empty file' })
  else walk.value(root, schema, '')
  return problems.sort((a, b) => a.line - b.line || a.column - b.column)
}

/** Line and column at which the value of a key path stands; of the file's start when there is none. */
export function locate(root: Node | null, path: readonly (string | number)[], lines: LineCounter) {
  let node: unknown = root
  for (const step of path) {
    const next: unknown = isMap(node) || isSeq(node) ? node.get(step, true) : undefined
    if (next === undefined) break
    node = next
  }
  return positionOf(node as Node | null, lines)
}

class Walk {
  readonly #lines: LineCounter
  readonly #problems: Problem[]

  constructor(lines: LineCounter, problems: Problem[]) {
    this.#lines = lines
    this.#problems = problems
  }

  value(node: Node | null, schema: Schema, key: string): void {
    if (isAlias(node)) return this.#problem(node, key, schema, 'an alias: write the value out')
    if (schema.type === 'object') {
      if (isMap(node)) this.#map(node, schema, key)
      else this.#problem(node, key, schema, describe(node))
    } else if (schema.type === 'array') {
      if (isSeq(node)) this.#list(node, schema, key)
      else this.#problem(node, key, schema, describe(node))
    } else this.#scalar(node, schema, key)
  }

  #map(node: YAMLMap, schema: Schema, key: string): void {
    const properties = schema.properties ?? {}
    const seen = new Set<string>()
    for (const pair of node.items) {
      const keyNode = pair.key as Node
      const name = isScalar(keyNode) ? String(keyNode.value) : describe(keyNode)
      const property = Object.hasOwn(properties, name) ? properties[name] : undefined
      if (property === undefined) {
        const hint = nearest(name, Object.keys(properties))
        this.#report(keyNode, join(key, name), {
          expected: `one of the keys ${Object.keys(properties).join(', ')}`,
          found: 'an unknown key',
          ...(hint === undefined ? {} : { hint }),
        })
      } else {
        seen.add(name)
        const value = pair.value as Node | null
        this.value(value ?? keyNode, value === null ? missingValue(property) : property, join(key, name))
      }
    }
    for (const name of schema.required ?? []) {
      if (seen.has(name)) continue
      const property = properties[name]
      this.#report(node, join(key, name), { expected: property?.expected ?? 'a value', found: 'nothing' })
    }
  }

  #list(node: YAMLSeq, schema: Schema, key: string): void {
    const { minItems = 0, maxItems = Number.POSITIVE_INFINITY, items = {} } = schema
    const count = node.items.length
    if (count < minItems || count > maxItems) this.#problem(node, key, schema, `a list of ${count}`)
    const values = new Set<unknown>()
    for (const [index, item] of node.items.entries()) {
      const itemNode = item as Node
      this.value(itemNode, items, `${key}[${index}]`)
      const value: unknown = isScalar(itemNode) ? itemNode.value : itemNode
      if (schema.uniqueItems && values.has(value))
        this.#report(itemNode, `${key}[${index}]`, {
          expected: 'every value once',
          found: `${quote(value)} again`,
        })
      values.add(value)
    }
  }

  #scalar(node: Node | null, schema: Schema, key: string): void {
    const wrong = isScalar(node) ? checkScalar(node.value, schema) : describe(node)
    if (wrong !== undefined) this.#problem(node, key, schema, wrong)
  }

  #problem(node: Node | null, key: string, schema: Schema, found: string): void {
    this.#report(node, key, { expected: schema.expected ?? `a value of type ${schema.type}`, found })
  }

  #report(node: Node | null, key: string, rest: { expected: string; found: string; hint?: string }): void {
    this.#problems.push({ ...positionOf(node, this.#lines), key, ...rest })
  }
}

/** What was found, when the value does not fit; undefined when it does. */
function checkScalar(value: unknown, schema: Schema): string | undefined {
  const found = quote(value)
  if (schema.enum !== undefined) return schema.enum.includes(value) ? undefined : found
  switch (schema.type) {
    case 'string': {
      if (typeof value !== 'string' || value.length < (schema.minLength ?? 0)) return found
      if (schema.pattern !== undefined && !new RegExp(schema.pattern).test(value)) return found
      const format = schema.format as FormatName | undefined
      const wrong = format === undefined ? undefined : FORMATS[format](value)
      if (wrong === undefined) return undefined
      return format === 'exit-rule' ? `${found}: ${wrong}` : found
    }
    case 'integer':
      if (typeof value !== 'number' || !Number.isInteger(value)) return found
      return value < (schema.minimum ?? value) || value > (schema.maximum ?? value) ? found : undefined
    case 'boolean':
      return typeof value === 'boolean' ? undefined : found
    default:
      return found
  }
}

/** `key:` with nothing behind it: point at the key, and let no type accept it. */
const missingValue = (schema: Schema): Schema => ({ expected: schema.expected ?? 'a value', type: 'nothing' })

function describe(node: Node | null | undefined): string {
  if (node === null || node === undefined) return 'nothing'
  if (isMap(node)) return 'a mapping'
  if (isSeq(node)) return 'a list'
  return isScalar(node) ? quote(node.value) : 'something else'
}

function quote(value: unknown): string {
  if (value === null || value === undefined) return 'nothing'
  const text = typeof value === 'string' ? JSON.stringify(value) : String(value)
  return text.length > 60 ? `${text.slice(0, 57)}...` : text
}

function positionOf(node: Node | null, lines: LineCounter): { line: number; column: number } {
  const offset = node?.range?.[0] ?? 0
  const { line, col } = lines.linePos(offset)
  return { line: Math.max(1, line), column: Math.max(1, col) }
}

const join = (key: string, name: string): string => (key === '' ? name : `${key}.${name}`)

/** The known key with the smallest edit distance, if that is 2 or a third of the length at most. */
function nearest(name: string, known: readonly string[]): string | undefined {
  let best: string | undefined
  let distance = Math.min(name.length, Math.max(2, Math.floor(name.length / 3)) + 1)
  for (const candidate of known) {
    const d = editDistance(name.toLowerCase(), candidate.toLowerCase())
    if (d < distance) [best, distance] = [candidate, d]
  }
  return best
}

/** Levenshtein, on keys of at most 60 characters. */
function editDistance(a: string, b: string): number {
  const from = a.slice(0, 60)
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= from.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++)
      next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (from[i - 1] === b[j - 1] ? 0 : 1)))
    row = next
  }
  return row[b.length]!
}
