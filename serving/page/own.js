// Indicators with a period of the user's own, computed from the bars that are loaded.

export const MAX_PERIOD = 1000;
const WARM_UP = 5;  // an EMA or RSI depends on older bars: it is shown after this many periods

/** Name, colour and computation of each; `below` if it has its own pane. */
export const OWN = {
  own_sma: {name: "SMA", colour: "--line-3", points: sma},
  own_ema: {name: "EMA", colour: "--line-5", points: ema},
  own_rsi: {name: "RSI", colour: "--line-1", points: rsi, below: true, marks: [30, 70]},
};

/** A period from a field: a whole number of at least 2, or undefined. */
export function periodOf(text) {
  const period = Number(text);
  return Number.isInteger(period) && period >= 2 && period <= MAX_PERIOD ? period : undefined;
}

export function sma(bars, period) {
  const points = [];
  let sum = 0;
  bars.forEach((bar, i) => {
    sum += +bar.close;
    if (i >= period) sum -= +bars[i - period].close;
    if (i >= period - 1) points.push({time: bar.time, value: sum / period});
  });
  return points;
}

export function ema(bars, period) {
  const points = [];
  const share = 2 / (period + 1);
  let value;
  bars.forEach((bar, i) => {
    value = value === undefined ? +bar.close : value + share * (bar.close - value);
    if (i >= WARM_UP * period) points.push({time: bar.time, value});
  });
  return points;
}

/** Wilder's: averages of gains and losses, each smoothed by 1/period. */
export function rsi(bars, period) {
  const points = [];
  let [gain, loss] = [0, 0];
  bars.forEach((bar, i) => {
    if (!i) return;
    const change = bar.close - bars[i - 1].close;
    const count = Math.min(i, period);
    gain += (Math.max(change, 0) - gain) / count;
    loss += (Math.max(-change, 0) - loss) / count;
    if (i >= WARM_UP * period) points.push({time: bar.time, value: gain + loss ? 100 * gain / (gain + loss) : 50});
  });
  return points;
}

/** The bar from which a line has values, counted from the first loaded one. */
export const firstOf = (id, period) => (id === "own_sma" ? period : WARM_UP * period + 1);
