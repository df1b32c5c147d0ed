import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Resvg } from '@resvg/resvg-js'
import { parse, View } from 'vega'
import { compile, type TopLevelSpec } from 'vega-lite'
import type { Plot } from './bench.ts'

/** Draws one plot as SVG and PNG, without a browser. Returns the files written. */
export async function draw({ name, values, spec }: Plot, out: string): Promise<string[]> {
  const whole = { background: 'white', ...spec, data: { values } } as unknown as TopLevelSpec
  const svg = await new View(parse(compile(whole).spec), { renderer: 'none' }).toSVG()
  const png = new Resvg(svg, { fitTo: { mode: 'zoom', value: 2 } }).render().asPng()
  const files = [join(out, `${name}.svg`), join(out, `${name}.png`)]
  await Promise.all([writeFile(files[0]!, svg), writeFile(files[1]!, png)])
  return files
}
