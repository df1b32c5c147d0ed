/**
 * GET /openapi.json: what this server is, told by its routes themselves. Their schemas are JSON Schema, which OpenAPI 3.1
 * takes as it is, so putting them together is all there is to do. They stand in `config`, where Fastify leaves them alone:
 * what comes in is read by decoders of our own.
 */
import type { FastifyInstance, RouteOptions } from 'fastify'
import { ERROR_RESPONSES, SCHEMAS } from '#directory/routes/schemas'

interface RouteSchema {
  readonly tags?: readonly string[]
  readonly summary?: string
  readonly description?: string
  readonly params?: Properties
  readonly querystring?: Properties
  readonly headers?: Properties
  readonly body?: object
  readonly response?: Readonly<Record<string, object>>
}

interface Properties {
  readonly properties: Readonly<Record<string, { readonly description?: string }>>
  readonly required?: readonly string[]
}

/** To be called before any route is added: it hears of all that come after. */
export function openApiRoute(app: FastifyInstance): void {
  const paths: Record<string, Record<string, object>> = {}
  app.addHook('onRoute', ({ method, url, config }: RouteOptions) => {
    const path = url.replace(/:([a-z]+)/gi, '{$1}')
    for (const verb of [method].flat()) {
      // Those come with every GET.
      if (verb === 'HEAD') continue
      paths[path] = { ...paths[path], [verb.toLowerCase()]: operation(url, (config ?? {}) as RouteSchema) }
    }
  })
  const describe = (): object => ({
    openapi: '3.1.0',
    info: {
      title: 'IPpriv directory',
      version: '1',
      description:
        'Everything that is worth trusting is signed inside its document; transport needs no secrecy.',
      license: { name: 'MIT', identifier: 'MIT' },
    },
    servers: [{ url: '/' }],
    tags: ['documents', 'authorities', 'operation', 'page'].map((name) => ({ name })),
    components: { responses: ERROR_RESPONSES },
    paths: Object.fromEntries(Object.entries(paths).sort(([a], [b]) => (a < b ? -1 : 1))),
  })
  app.get('/openapi.json', { config: SCHEMAS.openapi }, async (_request, reply) =>
    reply.header('cache-control', 'public, max-age=3600').send(describe()),
  )
}

function operation(url: string, schema: RouteSchema): object {
  const { tags, summary, description, params, querystring, headers, body, response = {} } = schema
  const named = new Set([...url.matchAll(/:([a-z]+)/gi)].map(([, name]) => name!))
  const parameters = [
    ...parametersOf(params, 'path').filter(({ name }) => named.has(name)),
    ...parametersOf(querystring, 'query'),
    ...parametersOf(headers, 'header'),
  ]
  return {
    ...(tags === undefined ? {} : { tags }),
    ...(summary === undefined ? {} : { summary }),
    ...(description === undefined ? {} : { description }),
    ...(parameters.length === 0 ? {} : { parameters }),
    ...(body === undefined ? {} : { requestBody: { required: true, ...body } }),
    responses: response,
  }
}

function parametersOf(schema: Properties | undefined, where: 'path' | 'query' | 'header') {
  return Object.entries(schema?.properties ?? {}).map(([name, { description, ...rest }]) => ({
    name,
    in: where,
    required: where === 'path' || (schema?.required?.includes(name) ?? false),
    ...(description === undefined ? {} : { description }),
    schema: rest,
  }))
}
