// The legend above the chart: the selected bar, its lines and marks, and the 24-hour prices.

import {fixed, moment, short} from "./bars.js";
import {KINDS, counted} from "./marks.js";

function element(tag, className, text, ...parts) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  made.append(...parts);
  return made;
}

/** Show one bar: its prices, lines and marks; without marks, what the letters mean. */
export function showLegend(place, {bar, symbol, timeframe, decimals, lines, own, rows, marks, isMarked, at}) {
  if (!bar) return place.replaceChildren();
  const price = (text) => fixed(text, decimals);
  const percent = (+bar.close / +bar.open - 1) * 100;
  const way = percent < 0 ? "down" : "up";
  const first = element("p", "bar", undefined, element("b", "", `${symbol} ${timeframe}`),
    element("span", "", moment(bar.time, timeframe)),
    ...[["O", bar.open], ["H", bar.high], ["L", bar.low], ["C", bar.close]].map(([name, text]) =>
      element("span", way, `${name} ${price(text)}`)),
    element("span", way, Number.isFinite(percent) ? `${percent < 0 ? "−" : "+"}${Math.abs(percent).toFixed(2)} %` : ""),
    element("span", "", `V ${short(bar.volume)}`));
  const told = lines.map(({line, decimals}) => {
    const swatch = element("i", `swatch ${line.colour.slice(2)}`);
    return element("span", "", undefined, swatch, `${line.name} `, element("em", "", rows.said(line, bar.time, decimals, at === undefined)));
  });
  for (const {line, said} of own) {
    told.push(element("span", "", undefined, element("i", `swatch ${line.colour.slice(2)}`), `${line.name} `, element("em", "", said)));
  }
  place.replaceChildren(first, ...(told.length ? [element("p", "lines", undefined, ...told)] : []),
    ...(isMarked ? [markKey(bar, marks)] : []));
}

function markKey(bar, marks) {
  const here = marks.filter((one) => one.time === bar.time);
  if (here.length) {
    return element("p", "marks", undefined, ...here.slice(0, 4).map((one) =>
      element("span", "", undefined, letter(one.kind), `${KINDS[one.kind].says}: ${one.text}`)));
  }
  const counts = Object.entries(counted(marks)).filter(([, count]) => count);
  if (!counts.length) return element("p", "marks", "No repairs, gaps or outages in what is loaded");
  return element("p", "marks", undefined, ...counts.map(([kind, count]) =>
    element("span", "", undefined, letter(kind), `${count} ${KINDS[kind][count === 1 ? "says" : "many"]}`)));
}

const letter = (kind) => element("i", `letter ${kind}`, KINDS[kind].letter);

/** Show the prices of the last 24 hours; empty without any. */
export function showDay(place, day, decimals) {
  if (!day) return place.replaceChildren();
  const price = (text) => fixed(text, decimals);
  const way = day.change.startsWith("-") ? "down" : "up";
  const sign = way === "up" ? "+" : "";
  const facts = [[day.is_whole ? "24 h" : "24 h, incomplete", `${sign}${price(day.change)} (${sign}${(+day.change_percent).toFixed(2)} %)`, way],
    ["High", price(day.high), ""], ["Low", price(day.low), ""], ["Volume", short(day.volume), "", "wide"],
    ["Quote volume", day.quote_volume === null ? "–" : short(day.quote_volume), "", "wide"]];
  const list = element("dl", "", undefined, ...facts.map(([name, value, tint, kind]) =>
    element("div", kind ?? "", undefined, element("dt", "", name), element("dd", tint, value))));
  const last = element("b", way, price(day.last));
  last.id = "last";
  if (!day.is_whole) {
    list.firstChild.title = day.missing_minutes === null ? "Earlier minutes are still being read"
      : `${day.minute_count} of 1440 minutes are stored; the change counts from ${day.from.slice(11, 16)} UTC`;
  }
  place.replaceChildren(last, list);
}
