import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { escapeText, html } from '#directory/page/html'
import { DARK, LIGHT, type Palette, STYLE } from '#directory/page/theme'

test('what stands in a hole is text, unless it came out of a template', () => {
  const evil = `<script>alert("1")</script>'&\u0000\u202e`
  assert.equal(
    html`<p title="${evil}">${evil}</p>`.toString(),
    '<p title="&#60;script&#62;alert(&#34;1&#34;)&#60;/script&#62;&#39;&#38;��">&#60;script&#62;alert(&#34;1&#34;)&#60;/script&#62;&#39;&#38;��</p>',
  )
  assert.equal(html`<b>${html`<i>${'<'}</i>`}</b>`.toString(), '<b><i>&#60;</i></b>')
  assert.equal(html`${[1, 'a', html`<br>`, undefined, false]}`.toString(), '1a<br>')
  // What only looks like a template's value is text.
  const fake = { toString: () => '<script>' } as unknown as string
  assert.equal(html`${String(fake)}`.toString(), '&#60;script&#62;')
})

test('an attribute without quotes is refused', () => {
  assert.throws(() => html`<p class=${'a'}>`, /without quotes/)
  assert.throws(() => html`<p title="${'a'}" class=${'a'}>`, /without quotes/)
  assert.equal(html`<a href="/?a=${'b'}">a=${'b'}</a>`.toString(), '<a href="/?a=b">a=b</a>')
})

test('nothing that was escaped can begin or end a tag, an attribute or a control', () =>
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) => {
      const escaped = escapeText(text)
      assert.doesNotMatch(escaped, /[<>"'`]/)
      // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there
      assert.doesNotMatch(escaped, /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/)
      assert.ok(escaped.isWellFormed())
      assert.doesNotMatch(escaped.replaceAll(/&#\d+;/g, ''), /&/)
    }),
  ))

test('the style sheet came through unescaped', () => {
  assert.doesNotMatch(STYLE.toString(), /&#\d/)
  assert.doesNotMatch(STYLE.toString(), /url\(|@import/)
})

test('everything can be read: contrasts of WCAG 2 (AA), light and dark', () => {
  for (const palette of [LIGHT, DARK])
    for (const ground of ['paper', 'card'] as const) {
      const against = (name: keyof Palette) => contrast(palette[name], palette[ground])
      for (const text of ['ink', 'soft', 'link', 'exit', 'entry', 'well', 'worn', 'ill'] as const)
        assert.ok(against(text) >= 4.5, `${text} on ${ground}: ${against(text).toFixed(2)}`)
      // Not text.
      assert.ok(against('middle') >= 3, `middle on ${ground}`)
    }
})

function contrast(a: string, b: string): number {
  const [light = 0, dark = 0] = [luminance(a), luminance(b)].sort((x, y) => y - x)
  return (light + 0.05) / (dark + 0.05)
}

/** WCAG 2.2, "relative luminance". */
function luminance(colour: string): number {
  const [r = 0, g = 0, b = 0] = [1, 3, 5].map((i) => {
    const value = Number.parseInt(colour.slice(i, i + 2), 16) / 255
    return value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4
  })
  return 0.2126 * r + 0.7152 * g + 0.0722 * b
}
