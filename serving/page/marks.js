// Marks of repairs, gaps and outages on candles, distinguished by shape, letter and colour.

import {RESOLUTIONS} from "./bars.js";
import {ask} from "./feed.js";

export const KINDS = {
  repaired: {letter: "R", shape: "circle", position: "aboveBar", colour: "--mark-repaired", says: "repaired", many: "repaired"},
  partial: {letter: "P", shape: "square", position: "aboveBar", colour: "--mark-partial", says: "partial", many: "partial"},
  gap: {letter: "G", shape: "arrowDown", position: "aboveBar", colour: "--mark-gap", says: "gap", many: "gaps"},
  outage: {letter: "O", shape: "arrowUp", position: "belowBar", colour: "--mark-outage", says: "outage", many: "outages"},
};

/** Marks of a range of bars: `{kind, time, text}`, each at an existing bar. */
export async function readMarks(symbol, timeframe, bars, span) {
  const asked = {symbol, resolution: RESOLUTIONS[timeframe], ...span};
  const [onBars, onScale] = await Promise.all([ask("/udf/marks", asked), ask("/udf/timescale_marks", asked)]);
  return [
    ...onBars.time.map((time, i) => ({kind: onBars.id[i].split(" ")[0], time, text: onBars.text[i]})),
    ...onScale.map((one) => ({kind: "outage", time: one.time, text: one.tooltip.join(" ")})),
  ].flatMap((mark) => placed(mark, bars)).sort((a, b) => a.time - b.time);
}

/** A mark's bar; if that is missing, as in a gap, the next one. */
export function placed(mark, bars) {
  const bar = bars.list[bars.place(mark.time)] ?? bars.last;
  if (!bar || mark.time < bars.first.time - 1) return [];
  return [{...mark, time: bar.time}];
}

/** Marks for the chart: one for each bar and kind. */
export function drawn(marks, colour) {
  const found = new Map();
  for (const {kind, time} of marks) {
    const {letter, shape, position, colour: name} = KINDS[kind];
    found.set(`${time} ${kind}`, {time, position, shape, color: colour(name), text: letter, size: 0.8});
  }
  return [...found.values()];
}

export function counted(marks) {
  const counts = Object.fromEntries(Object.keys(KINDS).map((kind) => [kind, 0]));
  for (const {kind} of marks) counts[kind]++;
  return counts;
}
