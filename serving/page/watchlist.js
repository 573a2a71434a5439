// The watchlist panel: the user's symbols with their last prices. Hidden without a login.

import {ask} from "./feed.js";

const REFRESH_MS = 5000;

export class Watchlist {
  #symbols = [];
  #prices = new Map();

  /**
   * @param panel a `details` element with a list
   * @param chosen called with a symbol, @param streamed returns the streamed symbols
   */
  constructor(panel, {chosen, streamed}) {
    Object.assign(this, {panel, chosen, streamed, place: panel.querySelector("ul")});
    panel.addEventListener("toggle", () => this.#read());
    setInterval(() => this.#read(), REFRESH_MS);
  }

  /** Set the symbols; without a user the panel is hidden. */
  show(symbols, hasUser) {
    this.panel.hidden = !hasUser;
    this.#symbols = [...symbols].sort();
    this.#draw();
    this.#read();
  }

  // Prices are read only while the panel is visible.
  async #read() {
    if (!this.panel.open || document.hidden) return;
    const streamed = new Set(this.streamed());
    const symbol = this.#symbols.filter((one) => streamed.has(one)).slice(0, 100).join(",");
    if (!symbol) return;
    const {prices} = await ask("/api/v1/prices", {symbol}).catch(() => ({prices: []}));
    for (const one of prices) this.#prices.set(one.symbol, one);
    this.#draw();
  }

  #draw() {
    if (!this.#symbols.length) {
      const none = Object.assign(document.createElement("li"), {textContent: "Empty. The star beside the symbol adds it."});
      return this.place.replaceChildren(none);
    }
    const focused = document.activeElement?.dataset.watched;
    this.place.replaceChildren(...this.#symbols.map((symbol) => {
      const day = this.#prices.get(symbol);
      const button = Object.assign(document.createElement("button"), {type: "button"});
      button.dataset.watched = symbol;
      button.addEventListener("click", () => {
        this.panel.open = false;
        this.chosen(symbol);
      });
      const name = Object.assign(document.createElement("b"), {textContent: symbol});
      const last = Object.assign(document.createElement("span"), {textContent: day?.last ?? "–"});
      button.append(name, last);
      if (day) {
        const isDown = day.change.startsWith("-");
        button.append(Object.assign(document.createElement("em"), {className: isDown ? "down" : "up",
          textContent: `${isDown ? "" : "+"}${(+day.change_percent).toFixed(2)} %${day.is_whole ? "" : " (part of the day)"}`}));
      }
      const item = document.createElement("li");
      item.append(button);
      return item;
    }));
    if (focused) this.place.querySelector(`[data-watched="${CSS.escape(focused)}"]`)?.focus();
  }
}
