/**
 * HTML that is escaped by construction: whatever stands in a template's holes is text, unless it came out of a
 * template itself. There is no way to make `Html` from a string.
 */

export class Html {
  readonly #text: string

  /** Of a template literal alone: `strings.raw` is what a call with an array of one's own would lack. */
  constructor(strings: TemplateStringsArray, values: readonly Content[]) {
    let text = strings[0]!
    for (const [i, value] of values.entries()) {
      if (isUnquoted(text)) throw new Error('an attribute without quotes in a template')
      text += contentText(value) + strings[i + 1]!
    }
    this.#text = text
  }

  toString(): string {
    return this.#text
  }
}

/** What may stand in a hole. Nothing is written for `undefined` and `false`. */
export type Content = Html | string | number | undefined | false | readonly Content[]

export const html = (strings: TemplateStringsArray, ...values: readonly Content[]): Html =>
  new Html(strings, values)

/** Would the next letter begin the value of an attribute? A space would end it there. */
function isUnquoted(text: string): boolean {
  const tag = text.slice(text.lastIndexOf('<'))
  return /^<[^>]*=\s*$/.test(tag) && tag.split('"').length % 2 === 1
}

function contentText(value: Content): string {
  if (value === undefined || value === false) return ''
  if (value instanceof Html) return value.toString()
  if (typeof value === 'object') return value.map(contentText).join('')
  return escapeText(String(value))
}

/** For text and for values of quoted attributes. */
export const escapeText = (text: string): string =>
  text
    .toWellFormed()
    .replace(UNPRINTABLE, '�')
    .replace(/[&<>"'`]/g, (c) => `&#${c.charCodeAt(0)};`)

/** Controls (a NUL ends nothing here), and what turns the direction of the text around it (Unicode UAX 9). */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const UNPRINTABLE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g
