// The star beside the symbol: whether it is on one's watchlist. Hidden from who is not logged in.

import {ask} from "./feed.js";

const PATH = "/api/v1/watchlist";

export class Star {
  #symbol = "";
  #watched = new Set();
  #isBusy = false;

  /** @param told called with what changed, in words, @param failed called with an error */
  constructor(button, {told, failed}) {
    Object.assign(this, {button, told, failed});
    button.addEventListener("click", () => this.toggle());
  }

  /** Somebody is logged in, whose watchlist is read; or nobody. */
  async begin(user) {
    this.button.hidden = !user;
    if (!user) return;
    try {
      this.list((await ask(PATH)).watchlist.map((one) => one.symbol));
    } catch (error) {
      this.failed(error);
    }
  }

  /** What is on the watchlist, all of it. */
  list(symbols) {
    this.#watched = new Set(symbols);
    this.#draw();
  }

  /** The symbol that it stands beside. */
  show(symbol) {
    this.#symbol = symbol;
    this.#draw();
  }

  /** Put the symbol on the watchlist, or take it from there. */
  async toggle() {
    if (this.button.hidden || this.#isBusy || !this.#symbol) return;
    const symbol = this.#symbol;
    const isWanted = !this.#watched.has(symbol);
    this.#isBusy = true;
    this.#set(symbol, isWanted);  // before it is asked for: what the server says from then on is newer
    try {
      await this.#tell(symbol, isWanted);
      this.told(isWanted ? `${symbol} is on your watchlist.` : `${symbol} is on your watchlist no longer.`);
    } catch (error) {
      this.#set(symbol, !isWanted);
      this.failed(error);
    } finally {
      this.#isBusy = false;
    }
  }

  #set(symbol, isOn) {
    this.#watched[isOn ? "add" : "delete"](symbol);
    this.#draw();
  }

  async #tell(symbol, isWanted) {
    try {
      await ask(`${PATH}/${encodeURIComponent(symbol)}`, {}, {method: isWanted ? "PUT" : "DELETE"});
    } catch (error) {
      if (isWanted || error.status !== 404) throw error;  // it was taken from there elsewhere
    }
  }

  // The name stays, and whether it is pressed says the rest: so are toggle buttons read aloud.
  #draw() {
    const isOn = this.#watched.has(this.#symbol);
    this.button.textContent = isOn ? "★" : "☆";
    this.button.setAttribute("aria-pressed", String(isOn));
    this.button.setAttribute("aria-label", `${this.#symbol || "Symbol"} on the watchlist`);
    this.button.title = `${isOn ? "Take from" : "Put on"} your watchlist (w)`;
  }
}
