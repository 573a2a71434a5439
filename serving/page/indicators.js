// The server's indicators: names, warm-up, and lines.

import {fromRest} from "./bars.js";
import {ask, ofSymbol} from "./feed.js";

const LINE = (column, name, colour, bars, further = {}) => ({column, name, colour, bars, ...further});

// `bars`: the bar with the first value, counted from the listing's first (docs/indicators.md).
export const OVERLAYS = {
  sma_20: {name: "SMA 20", lines: [LINE("sma_20", "SMA 20", "--line-1", 20)]},
  sma_50: {name: "SMA 50", lines: [LINE("sma_50", "SMA 50", "--line-2", 50)]},
  sma_200: {name: "SMA 200", lines: [LINE("sma_200", "SMA 200", "--line-3", 200)]},
  ema_20: {name: "EMA 20", lines: [LINE("ema_20", "EMA 20", "--line-4", 20)]},
  ema_50: {name: "EMA 50", lines: [LINE("ema_50", "EMA 50", "--line-5", 50)]},
  bollinger: {name: "Bollinger 20, 2", lines: [
    LINE("bollinger_upper", "Bollinger upper", "--line-6", 20), LINE("bollinger_lower", "Bollinger lower", "--line-6", 20)]},
  vwap: {name: "VWAP", lines: [LINE("vwap", "VWAP", "--line-7", 1, {dash: 2})]},
};
export const OSCILLATORS = {
  rsi: {name: "RSI 14", lines: [LINE("rsi_14", "RSI 14", "--line-1", 15)], marks: [30, 70]},
  macd: {name: "MACD 12, 26, 9", marks: [0], lines: [
    LINE("macd_histogram", "Histogram", "--line-6", 34, {isHistogram: true}),
    LINE("macd", "MACD", "--line-4", 34), LINE("macd_signal", "Signal", "--line-1", 34)]},
  atr: {name: "ATR 14", lines: [LINE("atr_14", "ATR 14", "--line-2", 15)], marks: []},
};

export const firstBarOf = (indicator) => Math.max(...indicator.lines.map((line) => line.bars));
export const warmUpOf = (indicator) =>
  (firstBarOf(indicator) > 1 ? `from bar ${firstBarOf(indicator)} on` : "from the day's first trade");

/** Indicator rows of one symbol and timeframe, read as bars come. */
export class Rows {
  #byTime = new Map();
  newest = undefined;
  trouble = "";
  isUnbuilt = false;

  clear() {
    this.#byTime.clear();
    this.newest = undefined;
    this.trouble = "";
    this.isUnbuilt = false;
  }

  at(time) {
    return this.#byTime.get(time);
  }

  put(row) {
    this.#byTime.set(row.time, row);
    if (!(row.time <= this.newest)) this.newest = row.time;
  }

  /** Read the rows of a half-open range. */
  async read(symbol, timeframe, from, to, isWanted) {
    const asked = {timeframe, from: from * 1000, to: to * 1000, limit: 5000};
    try {
      const {indicators} = await ask(ofSymbol(symbol, "indicators"), asked);
      if (!isWanted()) return;
      for (const row of indicators.map(fromRest)) this.put(row);
      this.trouble = this.#byTime.size ? "" : "no bars were built yet";
    } catch (error) {
      if (!isWanted()) return;
      this.isUnbuilt = error.isUnbuilt === true;
      this.trouble = this.isUnbuilt ? "not there before the marts' first build" : error.message;
    }
  }

  /** A line's values for these bars. */
  points(bars, column) {
    const found = [];
    for (const {time} of bars) {
      const value = this.#byTime.get(time)?.[column];
      if (value !== null && value !== undefined) found.push({time, value});
    }
    return found;
  }

  /**
   * A line's value at a bar in words: the number, or why there is none.
   * @param isNewest no bar is selected: use the newest value
   */
  said(line, time, decimals, isNewest = false) {
    if (this.trouble) return this.trouble;
    if (isNewest && !this.#byTime.has(time) && this.newest < time) time = this.newest;
    const row = this.#byTime.get(time);
    if (!row) return "not built yet";
    const value = row[line.column];
    if (value === null) return line.bars > 1 ? `warming up: from bar ${line.bars} on` : "no trade yet";
    return value.toFixed(line.column.startsWith("rsi") ? 1 : decimals);
  }
}
