// The star beside the symbol: whether it is on the watchlist. Hidden without a login.

import {ask} from "./feed.js";

const PATH = "/api/v1/watchlist";

export class Star {
  #symbol = "";
  #watched = new Set();
  #isBusy = false;

  /**
   * @param told called with a change in words, @param failed called with an error
   * @param changed called with the watched symbols
   */
  constructor(button, {told, failed, changed = () => {}}) {
    Object.assign(this, {button, told, failed, changed});
    button.addEventListener("click", () => this.toggle());
  }

  /** Set the user, and read the watchlist. */
  async begin(user) {
    this.button.hidden = !user;
    if (!user) return;
    try {
      this.list((await ask(PATH)).watchlist.map((one) => one.symbol));
    } catch (error) {
      this.failed(error);
    }
  }

  /** Set the whole watchlist. */
  list(symbols) {
    this.#watched = new Set(symbols);
    this.changed(this.#watched);
    this.#draw();
  }

  /** Set the symbol. */
  show(symbol) {
    this.#symbol = symbol;
    this.#draw();
  }

  /** Add the symbol to the watchlist, or remove it. */
  async toggle() {
    if (this.button.hidden || this.#isBusy || !this.#symbol) return;
    const symbol = this.#symbol;
    const isWanted = !this.#watched.has(symbol);
    this.#isBusy = true;
    this.#set(symbol, isWanted);  // before the request: later messages of the server are newer
    try {
      await this.#tell(symbol, isWanted);
      this.told(isWanted ? `${symbol} is on your watchlist.` : `${symbol} is no longer on your watchlist.`);
    } catch (error) {
      this.#set(symbol, !isWanted);
      this.failed(error);
    } finally {
      this.#isBusy = false;
    }
  }

  #set(symbol, isOn) {
    this.#watched[isOn ? "add" : "delete"](symbol);
    this.changed(this.#watched);
    this.#draw();
  }

  async #tell(symbol, isWanted) {
    try {
      await ask(`${PATH}/${encodeURIComponent(symbol)}`, {}, {method: isWanted ? "PUT" : "DELETE"});
    } catch (error) {
      if (isWanted || error.status !== 404) throw error;  // it was taken from there elsewhere
    }
  }

  // A toggle button keeps its name; screen readers add whether it is pressed.
  #draw() {
    const isOn = this.#watched.has(this.#symbol);
    this.button.textContent = isOn ? "★" : "☆";
    this.button.setAttribute("aria-pressed", String(isOn));
    this.button.setAttribute("aria-label", `${this.#symbol || "Symbol"} on the watchlist`);
    this.button.title = `${isOn ? "Take from" : "Put on"} your watchlist (w)`;
  }
}
