// Bars in memory, and their formatting. Nothing here uses the document.

export const TIMEFRAMES = {"1m": 60, "3m": 180, "5m": 300, "15m": 900, "30m": 1800, "1h": 3600, "2h": 7200,
  "4h": 14400, "6h": 21600, "8h": 28800, "12h": 43200, "1d": 86400, "3d": 259200, "1w": 604800, "1M": null};
export const RESOLUTIONS = {"1m": "1", "3m": "3", "5m": "5", "15m": "15", "30m": "30", "1h": "60", "2h": "120",
  "4h": "240", "6h": "360", "8h": "480", "12h": "720", "1d": "1D", "3d": "3D", "1w": "1W", "1M": "1M"};

/** Bars of one symbol and timeframe, by time; a bar has `time` in seconds and decimals as text. */
export class Bars {
  list = [];

  get first() { return this.list[0]; }
  get last() { return this.list.at(-1); }
  get length() { return this.list.length; }

  /** Index of the first bar at or after a time. */
  place(time) {
    let [low, high] = [0, this.list.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.list[middle].time < time) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  at(time) {
    const found = this.list[this.place(time)];
    return found?.time === time ? found : undefined;
  }

  /** Add a bar; true if it is the newest one, which the chart can append. */
  put(bar) {
    const place = this.place(bar.time);
    const isKnown = this.list[place]?.time === bar.time;
    this.list.splice(place, isKnown ? 1 : 0, bar);
    return place === this.list.length - 1;
  }

  /** Add older bars, in order, with some overlap; returns how many are new. */
  putBefore(bars) {
    const first = this.first?.time ?? Infinity;
    const older = bars.filter((bar) => bar.time < first);
    this.list = [...older, ...this.list];
    return older.length;
  }
}

export function fromRest(one) {
  return {...one, time: Date.parse(one.open_time) / 1000};
}

export function fromSocket(one) {
  return {...one, time: one.open_time / 1000};
}

export const isRising = (bar) => +bar.close >= +bar.open;

/** Whether bars are missing between two; only for timeframes of a fixed width. */
export function isHole(earlier, later, timeframe) {
  const width = TIMEFRAMES[timeframe] ?? 31 * 86400;
  return later.time - earlier.time > width;
}

export function decimalsOf(text) {
  const short = text.includes(".") ? text.replace(/0+$/, "") : text;
  return short.includes(".") ? short.split(".")[1].length : 0;
}

/** A decimal with this many digits after the point; zeros are cut or added as text, without rounding. */
export function fixed(text, decimals) {
  const [whole, part = ""] = text.split(".");
  if (/[1-9]/.test(part.slice(decimals))) return (+text).toFixed(decimals);
  return decimals ? `${whole}.${part.slice(0, decimals).padEnd(decimals, "0")}` : whole;
}

/** Price step derived from bars, for symbols without a listing. */
export function stepOf(bars) {
  const decimals = Math.max(0, ...bars.slice(-50).map((bar) => decimalsOf(bar.close)));
  return decimals ? `0.${"0".repeat(decimals - 1)}1` : "1";
}

const SHORT = new Intl.NumberFormat("en", {notation: "compact", maximumFractionDigits: 2});
export const short = (value) => SHORT.format(+value);

/** A bar's open time in UTC, as precise as its timeframe. */
/** Which time is shown: UTC, or the browser's. */
export const shownTime = {isLocal: false};

/** Seconds to add to a time so that its UTC text is what is shown. */
export const offsetOf = (time) => (shownTime.isLocal ? -60 * new Date(time * 1000).getTimezoneOffset() : 0);
export const zone = () => (shownTime.isLocal ? "local time" : "UTC");

export function moment(time, timeframe) {
  // Bars of a day or longer are of UTC days.
  const isDay = (TIMEFRAMES[timeframe] ?? Infinity) >= 86400;
  const text = new Date((time + (isDay ? 0 : offsetOf(time))) * 1000).toISOString();
  return (TIMEFRAMES[timeframe] ?? Infinity) >= 86400 ? text.slice(0, 10) : text.slice(0, 16).replace("T", " ");
}

export const dayOf = (time) => new Date(time * 1000).toISOString().slice(0, 10);

/** A bar in words, for screen readers. */
export function inWords(bar, timeframe, decimals) {
  const price = (text) => fixed(text, decimals);
  return `${moment(bar.time, timeframe)} ${zone()}: open ${price(bar.open)}, high ${price(bar.high)}, `
    + `low ${price(bar.low)}, close ${price(bar.close)}, volume ${short(bar.volume)}`;
}

const RETRACEMENTS = ["23_6", "38_2", "50", "61_8", "78_6"];

/** All-time high and low with the retracements between them, if known. */
export function levelsOf(found) {
  return [["High", found.all_time_high], ["Low", found.all_time_low],
    ...RETRACEMENTS.map((one) => [`${one.replace("_", ".")} %`, found[`fibonacci_${one}`]])]
    .filter(([, price]) => price !== null).map(([title, price]) => ({title, price}));
}
