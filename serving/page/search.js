// The symbol field: a combobox with a list of matches.
// Keys as in https://www.w3.org/WAI/ARIA/apg/patterns/combobox/

import {ask} from "./feed.js";

const WAIT_MS = 120;
const MOST = 30;

/** Matching streamed symbols, then other matching ones. */
export function joined(text, streamed, listed) {
  const wanted = text.trim().toUpperCase();
  const live = new Set(streamed);
  const names = streamed.filter((name) => name.toUpperCase().includes(wanted));
  const of = new Map(listed.map((one) => [one.symbol, one.description]));
  const rank = (name) => (name.toUpperCase() === wanted ? 0 : name.toUpperCase().startsWith(wanted) ? 1 : 2);
  return [...new Set([...names, ...of.keys()])]
    .sort((a, b) => rank(a) - rank(b) || live.has(b) - live.has(a))
    .slice(0, MOST)
    .map((symbol) => ({symbol, description: of.get(symbol) ?? "", isStreamed: live.has(symbol)}));
}

export class Search {
  #number = 0;
  #timer = 0;
  #active = -1;
  #shown = "";
  #found = [];
  streamed = [];

  /** @param chosen called with a symbol */
  constructor(field, list, chosen) {
    Object.assign(this, {field, list, chosen});
    field.addEventListener("focus", () => field.select());
    field.addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#find(field.value), WAIT_MS);
    });
    field.addEventListener("click", () => this.#isOpen || this.#find(""));
    field.addEventListener("keydown", (event) => this.#key(event));
    field.addEventListener("blur", () => {
      this.close();
      field.value = this.#shown;  // what was half typed is no choice
    });
    // Runs before the field loses focus, which would close the list.
    list.addEventListener("pointerdown", (event) => {
      const option = event.target.closest("[role=option]");
      event.preventDefault();
      if (option) this.#choose(option.dataset.symbol);
    });
  }

  get #isOpen() { return !this.list.hidden; }

  show(symbol) {
    this.#shown = symbol;
    if (document.activeElement !== this.field || !this.#isOpen) this.field.value = symbol;
  }

  close() {
    clearTimeout(this.#timer);
    this.#number++;
    this.list.hidden = true;
    this.#mark(-1);
    this.field.setAttribute("aria-expanded", "false");
  }

  async #find(text) {
    const number = ++this.#number;
    const listed = await ask("/udf/search", {query: text.trim().slice(0, 64), limit: MOST}).catch(() => []);
    if (number !== this.#number) return;
    const found = joined(text, this.streamed, listed);
    this.#found = found.map((one) => one.symbol);
    this.list.replaceChildren(...found.map((one, i) => {
      const option = Object.assign(document.createElement("li"), {id: `symbol-${i}`, role: "option"});
      option.dataset.symbol = one.symbol;
      option.setAttribute("aria-selected", "false");
      const name = Object.assign(document.createElement("b"), {textContent: one.symbol});
      const about = Object.assign(document.createElement("span"), {textContent: one.description});
      option.append(name, about);
      if (one.isStreamed) option.append(Object.assign(document.createElement("em"), {textContent: "live"}));
      return option;
    }));
    if (!found.length) {
      this.list.append(Object.assign(document.createElement("li"), {className: "none", textContent: "No symbol fits"}));
    }
    this.list.hidden = false;
    this.field.setAttribute("aria-expanded", "true");
    this.#mark(-1);
  }

  #key(event) {
    const options = this.list.querySelectorAll("[role=option]");
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (!this.#isOpen) return void this.#find("");
      const step = event.key === "ArrowDown" ? 1 : -1;
      this.#mark(options.length ? (this.#active + step + options.length) % options.length : -1);
    } else if (event.key === "Enter") {
      event.preventDefault();
      const chosen = options[this.#active]?.dataset.symbol;
      if (chosen) this.#choose(chosen);
      else void this.#enter(this.field.value.trim().toUpperCase());
    } else if (event.key === "Escape") {
      event.stopPropagation();
      if (this.#isOpen) this.close();
      else this.field.blur();
    }
  }

  #mark(place) {
    this.#active = place;
    this.list.querySelectorAll("[role=option]").forEach((option, i) => {
      option.setAttribute("aria-selected", String(i === place));
      if (i === place) option.scrollIntoView({block: "nearest"});
    });
    if (place < 0) this.field.removeAttribute("aria-activedescendant");
    else this.field.setAttribute("aria-activedescendant", `symbol-${place}`);
  }

  // Only a whole name is chosen, or what alone fits; otherwise the list stays open.
  async #enter(text) {
    if (!text) return this.close();
    clearTimeout(this.#timer);
    await this.#find(text);
    if (this.#found.includes(text)) this.#choose(text);
    else if (this.#found.length === 1) this.#choose(this.#found[0]);
  }

  #choose(text) {
    const symbol = text.trim().toUpperCase();
    this.close();
    if (symbol) this.chosen(symbol);
  }
}
