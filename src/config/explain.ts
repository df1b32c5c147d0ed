/** The schema as text for people: docs/config.md is this, and a test keeps it so. */
import { type ConfigKind, schemaOf } from '#config/schema'
import type { Schema } from '#config/validate'

/** The whole of docs/config.md. `samples` are the texts of deploy/config/*.yaml. */
export function explainConfig(samples: Readonly<Record<ConfigKind, string>>): string {
  const parts = [
    '# Configuration',
    '',
    'Generated from `src/config/schema.ts`; change it there and run `node src/config/write-docs.ts`.',
    '',
    'One YAML file per daemon. Unknown keys are errors, and an error names file, line and column. Paths are',
    'relative to the directory of the file. `ippriv node|client|directory --config FILE --check` checks a file',
    'and the keys it names, and does nothing else.',
  ]
  for (const kind of ['node', 'client', 'directory'] as const) {
    const schema = schemaOf(kind)
    parts.push(
      '',
      `## ${kind}.yaml`,
      '',
      schema.description ?? '',
      '',
      '```yaml',
      samples[kind].trimEnd(),
      '```',
      '',
    )
    parts.push('| key | value | default | meaning |', '|---|---|---|---|', ...rows(schema, ''))
  }
  return `${parts.join('\n')}\n`
}

/** JSON Schema (2020-12) of a file, for editors. */
export function jsonSchema(kind: ConfigKind): object {
  return { $schema: 'https://json-schema.org/draft/2020-12/schema', ...schemaOf(kind) }
}

function rows(schema: Schema, prefix: string): string[] {
  return Object.entries(schema.properties ?? {}).flatMap(([name, property]) => {
    const key = `${prefix}${name}`
    const required = schema.required?.includes(name) ?? false
    const row = `| \`${key}\` | ${cell(property.expected ?? '')} | ${defaultOf(property, required)} | ${cell(property.description ?? '')} |`
    return [row, ...rows(property, `${key}.`)]
  })
}

function defaultOf(schema: Schema, required: boolean): string {
  if (required) return '**required**'
  return schema.default === undefined ? '' : `\`${String(schema.default)}\``
}

const cell = (text: string): string => text.replaceAll('|', '\\|')
