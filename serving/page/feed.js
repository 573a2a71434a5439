// Requests by REST, and changes by WebSocket.

import {fromRest} from "./bars.js";

const RETRY_MS = [250, 15000];
const MOST_TRIES = 4;
const AGAIN_MS = 2000;
const PING_MS = 15000;
/** The login itself: its 401 must not open the form again. */
export const LOGIN = "/api/v1/login";
const SILENT_MS = 40000;  // a connection without messages for this long is dead

/** An error response; `status` is the HTTP status, `isPassing` that a retry may help. */
export class Refused extends Error {
  constructor(status, text, isPassing = false) {
    super(text);
    Object.assign(this, {status, isPassing});
  }

  /** Whether the marts are not built yet. */
  get isUnbuilt() { return this.status === 503 && !this.isPassing; }
}

const listeners = [];
/** Set the function that is called when the server requires a login. */
export const onLoginWanted = (call) => listeners.push(call);

/** Request JSON, with a few retries. */
export async function ask(path, parameters = {}, init = {}) {
  for (let tries = 1; ; tries++) {
    try {
      return await answered(path, parameters, init);
    } catch (error) {
      if (!error.isPassing || tries >= MOST_TRIES) throw error;
      await new Promise((done) => setTimeout(done, AGAIN_MS * tries * (0.5 + Math.random())));
    }
  }
}

async function answered(path, parameters, init) {
  const query = new URLSearchParams(parameters).toString();
  const answer = await fetch(query ? `${path}?${query}` : path, init);
  const text = await answer.text();
  let body = null;
  try {
    body = text ? JSON.parse(text) : null;
  } catch {
    throw new Refused(answer.status, `${path} did not answer in JSON`);
  }
  if (answer.ok) return body;
  if (answer.status === 401 && path !== LOGIN) for (const call of listeners) call();
  throw new Refused(answer.status, body?.detail || answer.statusText || `error ${answer.status}`,
    answer.status === 503 && answer.headers.has("retry-after"));
}

export const ofSymbol = (symbol, what) => `/api/v1/symbols/${encodeURIComponent(symbol)}/${what}`;

/** The newest bars before a time, or the newest of all. */
export async function barsBefore(symbol, timeframe, limit, before) {
  const asked = {symbol, timeframe, limit};
  if (before !== undefined) asked.to = before * 1000;
  return (await ask("/api/v1/candles", asked)).candles.map(fromRest);
}

/** Bars from a time on, page by page; null if there are more than `most`. */
export async function barsSince(symbol, timeframe, since, most) {
  const found = [];
  const asked = {symbol, timeframe, limit: 500, from: since * 1000};
  for (;;) {
    const page = await ask("/api/v1/candles", asked);
    found.push(...page.candles.map(fromRest));
    if (!page.next_cursor) return found;
    if (found.length >= most) return null;
    asked.cursor = page.next_cursor;
  }
}

/** A connection that reconnects by itself and delivers the bars of the subscribed symbol. */
export class Live {
  #socket = null;
  #failures = 0;
  #watched = null;
  #heardMs = 0;
  #timer = 0;
  #isEnded = true;
  #isCut = false;

  /**
   * @param told called with each message
   * @param stateChanged called with "connecting", "again" (open after a cut) or "lost"
   */
  constructor({told, stateChanged}) {
    Object.assign(this, {told, stateChanged});
    setInterval(() => this.#look(), PING_MS);
    addEventListener("online", () => this.#hurry());
    document.addEventListener("visibilitychange", () => document.hidden || this.#hurry());
  }

  start() {
    if (!this.#isEnded) return;
    this.#isEnded = false;
    this.#connect();
  }

  /** Disconnect until started again. */
  stop() {
    this.#isEnded = true;
    clearTimeout(this.#timer);
    this.#socket?.close();
  }

  watch(symbol, timeframe) {
    const before = this.#watched;
    if (before?.symbol === symbol && before.timeframe === timeframe) return;
    this.#watched = {symbol, timeframe};
    if (before) this.#say({type: "unsubscribe", ...before});
    this.#say({type: "subscribe", ...this.#watched});
  }

  /** Unsubscribe. */
  unwatch() {
    if (this.#watched) this.#say({type: "unsubscribe", ...this.#watched});
    this.#watched = null;
  }

  /** Subscribe again: the symbol may be streamed by now. */
  again() {
    if (this.#watched) this.#say({type: "subscribe", ...this.#watched});
  }

  #connect() {
    this.stateChanged("connecting");
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = this.#socket = new WebSocket(`${scheme}://${location.host}/api/v1/ws`);
    socket.onopen = () => {
      this.#heardMs = Date.now();
      if (this.#isCut) this.stateChanged("again");
      this.#isCut = false;
      this.#failures = 0;
      if (this.#watched) this.#say({type: "subscribe", ...this.#watched});
    };
    socket.onmessage = (message) => {
      this.#heardMs = Date.now();
      if (typeof message.data === "string") this.told(JSON.parse(message.data));
    };
    socket.onclose = () => {
      if (this.#isEnded || socket !== this.#socket) return;
      this.#isCut = true;
      this.stateChanged("lost");
      const bound = Math.min(RETRY_MS[1], RETRY_MS[0] * 2 ** this.#failures++);
      this.#timer = setTimeout(() => this.#connect(), bound / 2 + Math.random() * bound / 2);
    };
  }

  #say(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  #look() {
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    if (Date.now() - this.#heardMs > SILENT_MS) this.#socket.close();
    else this.#say({type: "ping"});
  }

  // The page is visible or the network is back: reconnect without waiting.
  #hurry() {
    if (this.#isEnded || this.#socket?.readyState !== WebSocket.CLOSED) return;
    clearTimeout(this.#timer);
    this.#connect();
  }
}
