/** How the page looks. The colours are data, so that a test can tell whether they can be read. */
import { type Html, html } from '#directory/page/html'

export interface Palette {
  /** Behind everything, and behind what stands on it. */
  readonly paper: string
  readonly card: string
  /** Text, and text that matters less. */
  readonly ink: string
  readonly soft: string
  /** Borders and grids. */
  readonly line: string
  readonly link: string
  /** Nodes, by what they are most sought for. */
  readonly exit: string
  readonly entry: string
  readonly middle: string
  /** States. */
  readonly well: string
  readonly worn: string
  readonly ill: string
}

export const LIGHT: Palette = {
  paper: '#f5f4f0',
  card: '#fffefb',
  ink: '#1c2530',
  soft: '#55606e',
  line: '#dedbd2',
  link: '#0b5c86',
  exit: '#ab4e08',
  entry: '#0c7d63',
  middle: '#71809a',
  well: '#166f3b',
  worn: '#875400',
  ill: '#b3261e',
}

export const DARK: Palette = {
  paper: '#0e1217',
  card: '#161c24',
  ink: '#e8ebf0',
  soft: '#a0acbb',
  line: '#2b3440',
  link: '#84c7ef',
  exit: '#f2a55f',
  entry: '#52cba8',
  middle: '#8291a8',
  well: '#66cc8e',
  worn: '#e7b755',
  ill: '#ff8f85',
}

const variables = (palette: Palette): string =>
  Object.entries(palette)
    .map(([name, colour]) => `--${name}:${colour};`)
    .join('')

/** All of it: a page has this one sheet inside, and its policy names its hash. */
export const STYLE: Html = html`
:root{color-scheme:light dark;${variables(LIGHT)}}
@media (prefers-color-scheme:dark){:root{${variables(DARK)}}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;font-variant-numeric:tabular-nums}
a{color:var(--link);text-decoration-thickness:1px;text-underline-offset:.18em}
a:hover{text-decoration-thickness:2px}
:focus-visible{outline:2px solid var(--link);outline-offset:2px;border-radius:3px}
.skip{position:absolute;left:-99em}
.skip:focus{left:1em;top:.6em;background:var(--card);padding:.3em .8em;z-index:1}
.frame{max-width:1160px;margin:0 auto;padding:0 24px}
.masthead{border-bottom:1px solid var(--line)}
.masthead .frame{display:flex;flex-wrap:wrap;align-items:center;gap:6px 28px;padding-top:14px;padding-bottom:14px}
.brand{display:flex;align-items:center;gap:10px;font-weight:600;letter-spacing:-.01em;color:var(--ink);text-decoration:none}
.brand svg{width:26px;height:26px}
.masthead nav{display:flex;gap:20px}
.masthead nav a{color:var(--soft);text-decoration:none;padding:4px 0;border-bottom:2px solid transparent}
.masthead nav a:hover{color:var(--ink)}
.masthead nav a[aria-current]{color:var(--ink);border-color:var(--link)}
.seek{display:flex;flex-wrap:wrap;gap:8px;align-items:center}
.masthead .seek{margin-left:auto}
input,select,button{font:inherit;font-size:15px;color:var(--ink);background:var(--card);border:1px solid var(--soft);border-radius:7px;padding:6px 11px}
input[type=search]{min-width:0;width:15em}
button{background:var(--link);border-color:var(--link);color:var(--card);cursor:pointer}
main.frame{padding-top:30px;padding-bottom:56px}
h1{font-size:30px;line-height:1.2;font-weight:650;letter-spacing:-.02em;margin:0 0 6px}
h2{font-size:16px;font-weight:620;margin:0 0 14px;letter-spacing:-.005em}
p{margin:0 0 10px;max-width:70ch}
.soft{color:var(--soft)}
.small{font-size:14px}
.state{display:flex;align-items:baseline;gap:10px;margin:0 0 26px;color:var(--soft)}
.dot{flex:none;width:10px;height:10px;border-radius:50%;background:var(--soft);align-self:flex-start;margin-top:.45em}
.dot.well{background:var(--well)}.dot.worn{background:var(--worn)}.dot.ill{background:var(--ill)}
.well{color:var(--well)}.worn{color:var(--worn)}.ill{color:var(--ill)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:1px;margin:0 0 22px;padding:0;background:var(--card);border:1px solid var(--line);border-radius:12px;overflow:hidden}
.tiles div{box-shadow:0 0 0 1px var(--line);padding:16px 20px}
.tiles dt{color:var(--soft);font-size:14px}
.tiles dd{margin:0;font-size:27px;line-height:1.25;font-weight:600;letter-spacing:-.02em}
.tiles dd small{display:block;font-size:13.5px;font-weight:400;letter-spacing:0;color:var(--soft)}
.card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:20px 22px;margin:0 0 22px;min-width:0}
.pair{display:grid;grid-template-columns:minmax(0,1.45fr) minmax(0,1fr);gap:22px;align-items:stretch}
.stack{display:flex;flex-direction:column}
.stack .card:last-child{flex:1}
@media (max-width:860px){.pair{grid-template-columns:minmax(0,1fr);gap:0}.masthead .seek{margin-left:0}}
svg{display:block;max-width:100%}
svg text{font:13px system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;fill:var(--soft)}
.ring{width:100%;height:auto;max-width:640px;margin:0 auto}
.ring .exit{stroke:var(--exit)}.ring .entry{stroke:var(--entry)}.ring .middle{stroke:var(--middle)}
.ring .track{stroke-opacity:.55}
.ring .kin{stroke:var(--link);stroke-opacity:.34;fill:none;stroke-width:1.1}
.ring path{fill:none}
.ring .net{stroke:var(--line);fill:none;stroke-width:1.5}
.ring a:hover path,.ring a:focus path{stroke:var(--ink)}
.ring .dim{opacity:.28}
.ring .here{stroke:var(--ink)}
.key{display:flex;flex-wrap:wrap;gap:4px 18px;list-style:none;margin:14px 0 10px;padding:0;font-size:14px;color:var(--soft)}
.key li::before{content:"";display:inline-block;width:11px;height:11px;border-radius:3px;margin-right:7px;background:var(--middle)}
.key .exit::before{background:var(--exit)}.key .entry::before{background:var(--entry)}.key .kin::before{height:2px;border-radius:0;vertical-align:middle;background:var(--link)}
.spark{width:100%;height:74px}
.spark .area{fill:var(--link);fill-opacity:.11}
.spark .course{fill:none;stroke:var(--link);stroke-width:1.6;vector-effect:non-scaling-stroke;stroke-linejoin:round}
.ends{display:flex;justify-content:space-between;font-size:13.5px;color:var(--soft);margin:6px 0 0}
.life{width:100%;height:34px}
.life .fresh{fill:var(--well);fill-opacity:.75}.life .valid{fill:var(--worn);fill-opacity:.45}.life .rest{fill:var(--line)}
.life .now{fill:var(--ink)}
.shares{list-style:none;margin:0;padding:0;font-size:14px}
.shares li{display:grid;grid-template-columns:4.2em 1fr 3em;gap:12px;align-items:center;padding:3px 0}
.shares svg{width:100%;height:8px;border-radius:4px}
.shares span{text-align:right;color:var(--soft)}
.shares rect{fill:var(--middle)}.shares .rest{fill:var(--line)}.shares .exit{fill:var(--exit)}.shares .entry,.shares .guard{fill:var(--entry)}
.scroll{overflow-x:auto;margin:0 -22px;padding:0 22px}
table{border-collapse:collapse;width:100%;font-size:14.5px}
caption{text-align:left;color:var(--soft);font-size:14px;padding:0 0 10px}
th,td{text-align:left;padding:7px 12px 7px 0;border-bottom:1px solid var(--line);vertical-align:baseline;white-space:nowrap}
thead th{font-weight:500;font-size:14px;color:var(--soft)}
thead a{color:inherit;text-decoration:none}
thead a:hover{color:var(--ink)}
tbody th{font-weight:560}
td.long{white-space:normal;min-width:22em}
td.number,th.number{text-align:right}
tbody tr:last-child>*{border-bottom:0}
.flags{display:flex;gap:5px;list-style:none;margin:0;padding:0}
.flags li{font-size:13px;line-height:1.45;padding:0 8px;border:1px solid var(--line);border-radius:99px;color:var(--soft)}
.flags .exit{color:var(--exit);border-color:currentColor}.flags .entry,.flags .guard{color:var(--entry);border-color:currentColor}
.mono{font-family:ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:.92em;overflow-wrap:anywhere}
.facts{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:8px 24px;margin:0}
.facts dt{color:var(--soft)}.facts dd{margin:0}
@media (max-width:560px){.facts{grid-template-columns:minmax(0,1fr);gap:0}.facts dd{margin:0 0 10px}.frame{padding:0 16px}}
.pages{display:flex;flex-wrap:wrap;gap:6px 14px;margin:16px 0 0;padding:0;list-style:none}
.pages [aria-current]{font-weight:650;color:var(--ink);text-decoration:none}
.plain{list-style:none;margin:0;padding:0}
.plain li{padding:3px 0}
footer{border-top:1px solid var(--line);color:var(--soft);font-size:14px}
footer .frame{padding-top:18px;padding-bottom:34px}
.times{font-size:14px;margin-top:8px}.times th,.times td{padding:5px 10px 5px 0}.times th{font-weight:500}.times td{white-space:normal}.times td:last-child{padding-right:0;text-align:right;color:var(--soft)}
`
