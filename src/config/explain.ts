/** The schema and the error table as text for people: docs/config.md and docs/errors.md are this, and a test keeps it so. */
import { ERRORS } from '#base/errors'
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

/** The whole of docs/errors.md. */
export function explainErrors(): string {
  const rows = Object.entries(ERRORS).map(([code, [what, todo]]) => `| \`${code}\` | ${what} | ${todo} |`)
  return `# Errors

Every failure a person or a program can see has one of these codes. A command prints one line: what happened, where,
what to do, and the code; on the control socket the code is \`error.code\`. Generated from \`src/base/errors.ts\`; change
it there and run \`node src/config/write-docs.ts\`.

| code | what happened | what to do |
|---|---|---|
${rows.join('\n')}
`
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
    return [row, ...rows(property, `${key}.`), ...rows(property.items ?? {}, `${key}[].`)]
  })
}

function defaultOf(schema: Schema, required: boolean): string {
  if (required) return '**required**'
  return schema.default === undefined ? '' : `\`${String(schema.default)}\``
}

const cell = (text: string): string => text.replaceAll('|', '\\|')
