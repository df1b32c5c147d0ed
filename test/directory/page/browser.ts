/** A headless Chromium (Debian's), spoken to over a pipe in the DevTools protocol: no port, no package. */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable, Writable } from 'node:stream'

/** Slow machines start a browser slowly. */
const PATIENCE = 90_000

type Fields = Readonly<Record<string, unknown>>
interface Message {
  readonly id?: number
  readonly method?: string
  readonly params?: Fields
  readonly result?: Fields
  readonly error?: { readonly message: string }
  readonly sessionId?: string
}

export class Browser {
  readonly #child: ChildProcess
  readonly #folder: string
  readonly #waiting = new Map<number, (reply: Message) => void>()
  readonly #tabs = new Map<string, Tab>()
  #last = 0
  #buffer = ''

  static async launch(): Promise<Browser> {
    return new Browser(await mkdtemp(join(tmpdir(), 'ippriv-chromium-')))
  }

  private constructor(folder: string) {
    this.#folder = folder
    this.#child = spawn('chromium', [...FLAGS, `--user-data-dir=${folder}`], {
      stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'],
      // Of its own group: what it starts ends with it.
      detached: true,
    })
    this.#child.on('error', (error) => this.#end(error.message))
    this.#child.on('exit', () => this.#end('chromium has ended'))
    const replies = this.#child.stdio[4] as Readable
    replies.setEncoding('utf8').on('data', (text: string) => this.#read(text))
  }

  async open(): Promise<Tab> {
    const { targetId } = await this.send('Target.createTarget', { url: 'about:blank' })
    const { sessionId } = await this.send('Target.attachToTarget', { targetId, flatten: true })
    const tab = new Tab(this, sessionId as string)
    this.#tabs.set(sessionId as string, tab)
    for (const domain of ['Page', 'Network', 'Log', 'Runtime', 'Accessibility', 'DOM'])
      await tab.send(`${domain}.enable`)
    await tab.send('Page.setLifecycleEventsEnabled', { enabled: true })
    return tab
  }

  send(method: string, params: Fields = {}, sessionId?: string): Promise<Fields> {
    const id = ++this.#last
    const { promise, resolve, reject } = Promise.withResolvers<Fields>()
    const timer = setTimeout(() => reject(new Error(`${method}: no answer`)), PATIENCE)
    this.#waiting.set(id, ({ result, error }) => {
      clearTimeout(timer)
      if (error === undefined) resolve(result ?? {})
      else reject(new Error(`${method}: ${error.message}`))
    })
    const message = { id, method, params, ...(sessionId === undefined ? {} : { sessionId }) }
    const requests = this.#child.stdio[3] as Writable
    requests.write(`${JSON.stringify(message)}\0`)
    return promise
  }

  async close(): Promise<void> {
    const { pid, exitCode } = this.#child
    if (pid !== undefined && exitCode === null) {
      const ended = new Promise((done) => this.#child.once('exit', done))
      process.kill(-pid, 'SIGKILL')
      await ended
    }
    await rm(this.#folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 })
  }

  #read(text: string): void {
    const parts = (this.#buffer + text).split('\0')
    this.#buffer = parts.pop() ?? ''
    for (const part of parts) {
      const message = JSON.parse(part) as Message
      if (message.id !== undefined) {
        this.#waiting.get(message.id)?.(message)
        this.#waiting.delete(message.id)
      } else if (message.sessionId !== undefined && message.method !== undefined)
        this.#tabs.get(message.sessionId)?.hear(message.method, message.params ?? {})
    }
  }

  #end(why: string): void {
    for (const answer of this.#waiting.values()) answer({ error: { message: why } })
    this.#waiting.clear()
  }
}

const FLAGS = [
  '--headless=new',
  '--remote-debugging-pipe',
  // It is root in a test, and sees pages of ours only.
  '--no-sandbox',
  '--disable-gpu',
  '--hide-scrollbars',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-default-apps',
  '--disable-extensions',
  '--disable-sync',
  '--disable-dev-shm-usage',
  '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1',
  '--lang=en',
]

export class Tab {
  readonly #browser: Browser
  readonly #session: string
  /** Everything it asked for, by URL. */
  readonly requests: string[] = []
  /** What a person would see in the console: errors and warnings. */
  readonly complaints: string[] = []
  #loaded: (() => void) | undefined
  #began = 0
  /** Milliseconds from the start of the last navigation to the first text or picture; undefined: not yet. */
  firstPaint: number | undefined

  constructor(browser: Browser, session: string) {
    this.#browser = browser
    this.#session = session
  }

  send(method: string, params: Fields = {}): Promise<Fields> {
    return this.#browser.send(method, params, this.#session)
  }

  /** Resolves when the page is there with all that belongs to it. */
  async go(url: string): Promise<void> {
    await this.during(() => this.send('Page.navigate', { url }))
  }

  /** Does something that leads to another page, and waits for that. */
  async during(action: () => Promise<unknown>): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const timer = setTimeout(() => reject(new Error('the page did not load')), PATIENCE)
    this.#loaded = resolve
    await action()
    await promise
    clearTimeout(timer)
  }

  async html(): Promise<string> {
    const { root } = await this.send('DOM.getDocument', { depth: 0 })
    const { nodeId } = root as { nodeId: number }
    return (await this.send('DOM.getOuterHTML', { nodeId })).outerHTML as string
  }

  /** Writes into the field that a selector finds, and presses Enter. No script of the page takes part. */
  async submit(selector: string, text: string): Promise<void> {
    const { root } = await this.send('DOM.getDocument', { depth: 0 })
    const { nodeId } = await this.send('DOM.querySelector', {
      nodeId: (root as { nodeId: number }).nodeId,
      selector,
    })
    await this.send('DOM.focus', { nodeId })
    await this.send('Input.insertText', { text })
    const enter = { key: 'Enter', code: 'Enter', windowsVirtualKeyCode: 13, text: '\r' }
    await this.during(async () => {
      await this.send('Input.dispatchKeyEvent', { type: 'keyDown', ...enter })
      await this.send('Input.dispatchKeyEvent', { type: 'keyUp', ...enter })
    })
  }

  async view(width: number, height: number, scheme: 'light' | 'dark', scale = 1): Promise<void> {
    const device = { width, height, deviceScaleFactor: scale, mobile: false }
    await this.send('Emulation.setDeviceMetricsOverride', device)
    const features = [{ name: 'prefers-color-scheme', value: scheme }]
    await this.send('Emulation.setEmulatedMedia', { features })
  }

  /** A PNG of what is in view. */
  async picture(): Promise<Buffer> {
    const { data } = await this.send('Page.captureScreenshot', { format: 'png' })
    return Buffer.from(data as string, 'base64')
  }

  /** Roles of the accessibility tree, as a screen reader has them, with their names. */
  async roles(): Promise<readonly { readonly role: string; readonly name: string }[]> {
    const { nodes } = await this.send('Accessibility.getFullAXTree')
    return (nodes as readonly AxNode[])
      .filter(({ ignored }) => !ignored)
      .map(({ role, name }) => ({ role: role?.value ?? '', name: name?.value ?? '' }))
  }

  hear(event: string, params: Fields): void {
    if (event === 'Network.requestWillBeSent') this.requests.push((params.request as { url: string }).url)
    else if (event === 'Page.loadEventFired') this.#loaded?.()
    else if (event === 'Page.lifecycleEvent') this.#lifecycle(params as unknown as Lifecycle)
    else if (event === 'Log.entryAdded') {
      const { level, text } = params.entry as { level: string; text: string }
      if (level === 'error' || level === 'warning') this.complaints.push(text)
    } else if (event === 'Runtime.exceptionThrown') this.complaints.push(JSON.stringify(params))
    else if (event === 'Runtime.consoleAPICalled') this.complaints.push(JSON.stringify(params.args))
  }

  #lifecycle({ name, timestamp }: Lifecycle): void {
    if (name === 'init') {
      this.#began = timestamp
      this.firstPaint = undefined
    } else if (name === 'firstContentfulPaint') this.firstPaint = (timestamp - this.#began) * 1000
  }
}

interface Lifecycle {
  readonly name: string
  /** Seconds. */
  readonly timestamp: number
}

interface AxNode {
  readonly ignored: boolean
  readonly role?: { readonly value: string }
  readonly name?: { readonly value: string }
}
