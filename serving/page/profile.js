// Volume profile of one day beside the chart, from stored trades, never estimated from candles.

import {ask, ofSymbol} from "./feed.js";
import {fixed, short} from "./bars.js";

const REFRESH_MS = 60000;
const UNBUILT = "No profile before the marts' first build.";

/** Position and widths of each visible bucket. */
export function rowsOf(buckets, session, {height, width, yOf}) {
  const most = Math.max(...buckets.map((one) => +one.volume));
  const rows = [];
  for (const one of buckets) {
    const [top, bottom] = [yOf(+one.price_high), yOf(+one.price_low)];
    if (top === null || bottom === null || bottom < 0 || top > height) continue;
    rows.push({
      y: top,
      height: Math.max(1, bottom - top - (bottom - top > 3 ? 1 : 0)),
      bid: +one.bid_volume / most * width,
      ask: +one.ask_volume / most * width,
      isValue: +one.price_low >= +session.value_area_low && +one.price_high <= +session.value_area_high,
      isControl: +one.price_low <= +session.point_of_control && +session.point_of_control < +one.price_high,
    });
  }
  return rows;
}

/** Coverage of a day's trades, in words. */
export function keptInWords(session) {
  if (session.is_complete) return "all trades kept";
  return `some trades kept${session.reason ? `: ${session.reason}` : ""}`;
}

export class Profile {
  #canvas;
  #said;
  #told = null;
  #number = 0;
  #asked = {};
  #absentUntilMs = 0;
  #frame = 0;
  painted = 0;  // buckets that are in sight

  /**
   * @param panel the element beside the chart
   * @param yOf where a price stands, in pixels of the chart's pane
   * @param colour a colour of the palette by name
   */
  constructor(panel, {yOf, colour}) {
    Object.assign(this, {panel, yOf, colour});
    this.#canvas = panel.querySelector("canvas");
    this.#said = panel.querySelector("#profile-said");
    new ResizeObserver(() => this.draw()).observe(panel);
  }

  get isShown() { return !this.panel.hidden; }

  /** Read again soon: another server may have more. */
  hope() {
    this.#absentUntilMs = 0;
    this.#asked = {};
  }

  clear() {
    this.#number++;
    this.#asked = {};
    this.#tell(null, "");
  }

  /** Show a day (`2026-11-21`), or the newest one. */
  async show(symbol, day, decimals) {
    const isSame = this.#asked.symbol === symbol && this.#asked.day === day;
    const isFresh = day !== "" || Date.now() - this.#asked.atMs < REFRESH_MS;
    if (!this.isShown || (isSame && isFresh)) return;
    const number = ++this.#number;
    this.#asked = {symbol, day, atMs: Date.now()};
    if (Date.now() < this.#absentUntilMs) return this.#tell(null, UNBUILT);
    try {
      const answer = await ask(ofSymbol(symbol, "volume-profile"), day ? {session: day} : {});
      if (number !== this.#number) return;
      if (!answer.session) {
        const whose = day ? `${symbol} on ${day}` : symbol;
        return this.#tell(null, `No trades of ${whose} are kept, so there is no profile: it is never guessed from candles.`);
      }
      const session = answer.session;
      const price = (text) => fixed(text, decimals);
      this.#tell({session, buckets: answer.volume_profile},
        `${session.session} · ${keptInWords(session)}`,
        [["Control", price(session.point_of_control)],
          ["Value", `${price(session.value_area_low)}–${price(session.value_area_high)}`],
          ["Volume", short(session.volume)]]);
    } catch (error) {
      if (number !== this.#number) return;
      if (error.isUnbuilt) this.#absentUntilMs = Date.now() + REFRESH_MS;
      this.#tell(null, error.isUnbuilt ? UNBUILT : `No profile: ${error.message}`);
    }
  }

  #tell(told, text, facts = []) {
    this.#told = told;
    const list = document.createElement("dl");
    for (const [name, value] of facts) {
      list.append(Object.assign(document.createElement("dt"), {textContent: name}),
        Object.assign(document.createElement("dd"), {textContent: value}));
    }
    this.#said.replaceChildren(text, list);
    const words = facts.map(([name, value]) => `${name} ${value}`).join(", ");
    this.#canvas.setAttribute("aria-label", told ? `Volume by price. ${words}` : "No volume profile");
    this.panel.dataset.empty = told ? "false" : "true";
    this.draw();
  }

  /** Redraw before the next frame; the chart calls it whenever it moves. */
  draw() {
    if (!this.isShown || this.#frame) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      this.#paint();
    });
  }

  #paint() {
    const {clientWidth: width, clientHeight: height} = this.#canvas;
    const ratio = devicePixelRatio || 1;
    this.#canvas.width = Math.round(width * ratio);
    this.#canvas.height = Math.round(height * ratio);
    const context = this.#canvas.getContext("2d");
    context.scale(ratio, ratio);
    this.painted = 0;
    if (!this.#told?.buckets.length) return;
    const {buckets, session} = this.#told;
    const [up, down, front] = ["up", "down", "front"].map(this.colour);
    for (const row of rowsOf(buckets, session, {height, width: width - 4, yOf: this.yOf})) {
      this.painted++;
      context.globalAlpha = row.isValue ? 0.85 : 0.4;
      context.fillStyle = down;
      context.fillRect(0, row.y, row.bid, row.height);
      context.fillStyle = up;
      context.fillRect(row.bid, row.y, row.ask, row.height);
      if (row.isControl) {
        context.globalAlpha = 1;
        context.strokeStyle = front;
        context.strokeRect(0.5, row.y - 0.5, row.bid + row.ask, row.height + 1);
      }
    }
  }
}
