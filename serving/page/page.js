// The page: its state and its controls. No build step, nothing from other hosts.

import {Account} from "./account.js";
import {Bars, TIMEFRAMES, dayOf, decimalsOf, fixed, fromSocket, inWords, isHole, levelsOf, shownTime, stepOf} from "./bars.js";
import {Chart, candle, colour} from "./chart.js";
import {choices, closeMenus, remembered} from "./menu.js";
import {OWN, firstOf} from "./own.js";
import {Live, ask, barsBefore, barsSince, ofSymbol, onLoginWanted} from "./feed.js";
import {OSCILLATORS, OVERLAYS, Rows} from "./indicators.js";
import {drawn, readMarks} from "./marks.js";
import {Profile} from "./profile.js";
import {Search} from "./search.js";
import {Star} from "./star.js";
import {Watchlist} from "./watchlist.js";
import {showDay, showLegend} from "./legend.js";

const PAGE = 500;           // bars of one request
const MAX_BARS = 20000;    // in memory
const MAX_MISSED = 2000;   // bars read after a disconnect; beyond this the page reloads them all
const MAX_REPAIRED = 200;  // bars before a disconnect that are read again, for repairs
const DAY_MS = 5000;        // between two reads of the 24-hour prices
const FURTHER_MS = 5000;    // between two reads of marks and indicators, as bars come
const AGAIN_MS = 5000;
const TEXT_FIELDS = "input:not([type=checkbox], [type=radio]), select";
const UNSTREAMED = "not streamed";

const byId = (id) => document.getElementById(id);
const state = {symbol: "", timeframe: "1m", bars: new Bars(), rows: new Rows(), marks: [], isWhole: false,
  isLoading: false, load: 0, decimals: 2, at: undefined};
const isOf = (load) => () => load === state.load;

// --- parts of the page

const chart = new Chart(byId("chart"), {
  moved: (range) => {
    if (range.from < 50) back();
    profileSoon();
  },
  looked: (time) => {
    state.at = time;
    tell();
  },
  drawn: () => profile?.draw(),
});
const profile = new Profile(byId("profile"), {yOf: chart.yOf, colour});
const search = new Search(byId("symbol"), byId("symbols"), (symbol) => {
  if (document.activeElement === byId("symbol")) byId("chart").focus();
  search.show(symbol);
  if (symbol !== state.symbol) show(symbol, state.timeframe);
});
const live = new Live({told: heard, stateChanged: connection});
const account = new Account(byId("login"), byId("account"), {entered, left: () => location.reload()});
const watchlist = new Watchlist(byId("watchlist"), {
  chosen: (symbol) => symbol !== state.symbol && show(symbol, state.timeframe),
  streamed: () => search.streamed,
});
const star = new Star(byId("star"), {
  changed: (symbols) => watchlist.show(symbols, !byId("star").hidden),
  told: (text) => { byId("summary").textContent = text; },
  failed: (error) => failed(error),
});
onLoginWanted(() => {
  live.stop();
  account.want();
});
const wanted = choices(byId("choices"), {changed: chosen});

function trouble(text) {
  byId("trouble").textContent = text;
  byId("trouble").hidden = !text;
}

// A 401 opens the login form, which says enough.
function failed(error, say = trouble) {
  if (error.status !== 401) say(error.message);
}

function tell() {
  const bar = (state.at && state.bars.at(state.at)) ?? state.bars.last;
  showLegend(byId("legend"), {...state, bar, lines: lines(), own: bar ? ownLines().map((one) => ({...one, said: saidOfOwn(one, bar)})) : [], isMarked: wanted.is("marks")});
}

/** The chosen lines, with their panes. */
function lines() {
  const found = Object.entries(OVERLAYS).filter(([id]) => wanted.is(id))
    .flatMap(([, one]) => one.lines.map((line) => ({line, under: false, marks: []})));
  const below = OSCILLATORS[wanted.oscillator];
  return [...found, ...(below?.lines ?? []).map((line) => ({line, under: true, marks: line === below.lines[0] ? below.marks : []}))]
    .map((one) => ({...one, decimals: state.decimals}));
}

/** The lines with a period of the user's own. */
function ownLines() {
  return Object.entries(OWN).map(([id, one]) => ({id, one, period: wanted.period(id)})).filter(({period}) => period)
    .map(({id, one, period}) => ({under: one.below === true, marks: one.marks ?? [], decimals: state.decimals,
      points: one.points(state.bars.list, period),
      line: {column: id, name: `${one.name} ${period}`, colour: one.colour, bars: firstOf(id, period), isOwn: true}}));
}

/** Value of an own line at a bar, in words. */
function saidOfOwn({line, points, decimals}, bar) {
  const point = points.findLast((one) => one.time <= bar.time);
  return point?.time === bar.time ? point.value.toFixed(line.column === "own_rsi" ? 1 : decimals)
    : `needs ${line.bars} loaded bars: scroll back`;
}

// --- history

async function show(symbol, timeframe) {
  const load = ++state.load;
  Object.assign(state, {symbol, timeframe, bars: new Bars(), marks: [], isWhole: false, isLoading: true,
    at: undefined});
  state.rows.clear();
  profile.clear();
  chart.setLevels([]);
  chart.setMarks([]);
  chart.show(state.bars);
  location.hash = `${symbol}/${timeframe}`;
  document.title = `${symbol} ${timeframe} · Candelabra`;
  search.show(symbol);
  star.show(symbol);
  for (const one of document.getElementsByName("timeframe")) {
    one.checked = one.value === timeframe;
    if (one.checked) one.parentElement.scrollIntoView({block: "nearest", inline: "nearest"});
  }
  trouble("");
  byId("day").replaceChildren();
  byId("summary").textContent = "";
  tell();  // nothing about the previous symbol
  byId("chart").setAttribute("aria-label", `Chart of ${symbol}, ${timeframe}`);
  try {
    const bars = await barsBefore(symbol, timeframe, PAGE);
    const tick = await tickOf(symbol, bars);
    if (load !== state.load) return;
    state.decimals = decimalsOf(tick);
    state.bars.putBefore(bars);
    state.isWhole = !bars.length;
    chart.setTick(state.decimals, tick, (TIMEFRAMES[timeframe] ?? Infinity) < 86400);
    chart.show(state.bars);
    chart.showNewest();
    tell();
    if (!bars.length) trouble(`No ${timeframe} bars of ${symbol} yet.`);
    else byId("summary").textContent = `${symbol} ${timeframe}. Newest ${inWords(state.bars.last, timeframe, state.decimals)}`;
    live.watch(symbol, timeframe);
    showPrices();
    further(load, true);
  } catch (error) {
    if (load !== state.load) return;
    failed(error);
    if (error.status === 404) {  // nothing of the symbol before
      live.unwatch();
      say(UNSTREAMED);
    }
  } finally {
    if (load === state.load) state.isLoading = false;
  }
}

// The tick size; derived from the bars if the symbol is not registered yet.
async function tickOf(symbol, bars) {
  const {listings} = await ask(`/api/v1/symbols/${encodeURIComponent(symbol)}`).catch(() => ({listings: []}));
  return listings.at(-1)?.tick_size ?? stepOf(bars);
}

async function back() {
  if (state.isWhole || state.isLoading || state.bars.length >= MAX_BARS || !state.bars.length) return;
  const load = state.load;
  state.isLoading = true;
  byId("loading").hidden = false;
  try {
    const {first} = state.bars;
    const bars = await barsBefore(state.symbol, state.timeframe, PAGE, first.time);
    if (load !== state.load) return;
    const range = chart.visible;
    const count = state.bars.putBefore(bars);
    state.isWhole = !count;  // only an empty page is the end; a short one is not
    chart.draw();
    if (range) chart.visible = {from: range.from + count, to: range.to + count};
    if (count) await further(load, true, first.time);
  } catch (error) {
    if (load === state.load) failed(error);
  } finally {
    if (load === state.load) state.isLoading = false;
    byId("loading").hidden = true;
  }
}

// Read bars missed by a disconnect or gap, without moving the view.
async function catchUp(since) {
  const load = state.load;
  try {
    const bars = await barsSince(state.symbol, state.timeframe, since, MAX_MISSED);
    if (load !== state.load) return;
    if (!bars) return show(state.symbol, state.timeframe);
    const newest = state.bars.last?.time ?? 0;
    // The WebSocket may have a newer state of the newest bar.
    for (const bar of bars) if (bar.time < newest || !state.bars.at(bar.time)) state.bars.put(bar);
    chart.draw();
    further(load);
  } catch (error) {
    if (load === state.load) failed(error, console.warn);
  }
}

// --- marks, levels, indicators, profile

let furtherTimer = 0;
let furtherMs = 0;

function furtherSoon() {
  if (furtherTimer) return;
  const load = state.load;
  furtherTimer = setTimeout(() => {
    furtherTimer = 0;
    furtherMs = Date.now();
    if (load === state.load) further(load);
  }, Math.max(500, furtherMs + FURTHER_MS - Date.now()));
}

async function further(load, isMore = false, until = undefined) {
  if (!state.bars.length) return;
  const tasks = [showMarks(load), showLines(load, isMore, until), showProfile()];
  if (isMore && until === undefined) tasks.push(showLevels(load));
  for (const result of await Promise.allSettled(tasks)) {
    if (result.status === "rejected" && load === state.load) failed(result.reason, console.warn);
  }
  if (load === state.load) tell();
}

async function showMarks(load) {
  const {bars} = state;
  const span = {from: bars.first.time, to: bars.last.time + (TIMEFRAMES[state.timeframe] ?? 31 * 86400)};
  const found = wanted.is("marks") ? await readMarks(state.symbol, state.timeframe, bars, span) : [];
  if (load !== state.load || (found.length && !wanted.is("marks"))) return;
  state.marks = found;
  chart.setMarks(drawn(found, colour));
}

async function showLevels(load) {
  let levels = [];
  if (wanted.is("levels")) {
    try {
      levels = levelsOf((await ask(ofSymbol(state.symbol, "levels"))).levels[0]);
    } catch (error) {
      if (!error.isUnbuilt && error.status !== 404) throw error;
      if (load === state.load) trouble("No levels before the marts' first build.");
    }
  }
  // Another choice was made meanwhile.
  if (load === state.load && (wanted.is("levels") || !levels.length)) chart.setLevels(levels);
}

async function showLines(load, isMore, until) {
  if (lines().length && !state.rows.isUnbuilt) {
    const {bars, rows} = state;
    // Rows from the newest on may have changed; past pages are read once.
    const from = isMore ? bars.first.time : rows.newest ?? bars.first.time;
    const to = until ?? bars.last.time + 1;
    await rows.read(state.symbol, state.timeframe, from, to, isOf(load));
    if (load !== state.load) return;
  }
  drawLines();
}

function drawLines() {
  chart.setLines([...lines().map((one) => ({...one, points: state.rows.points(state.bars.list, one.line.column)})), ...ownLines()]);
}

let profileTimer = 0;

function profileSoon() {
  clearTimeout(profileTimer);
  profileTimer = setTimeout(showProfile, 250);
}

// The day of the last visible bar; the newest day if that is the newest bar.
async function showProfile() {
  const range = chart.visible;
  if (!range || !state.bars.length) return;
  const last = state.bars.list[Math.min(state.bars.length - 1, Math.max(0, Math.floor(range.to)))];
  await profile.show(state.symbol, last === state.bars.last ? "" : dayOf(last.time), state.decimals);
}

async function showPrices() {
  if (!state.symbol || document.hidden) return;
  const {symbol} = state;
  try {
    const day = (await ask("/api/v1/prices", {symbol})).prices[0];
    if (symbol === state.symbol) showDay(byId("day"), day, state.decimals);
  } catch (error) {
    // Symbols that are not streamed have no 24-hour prices; if the server is unreachable, the last ones stay.
    if (symbol === state.symbol && error.status === 404) showDay(byId("day"));
  }
}

// --- live

function connection(name) {
  if (name === "again") {
    profile.hope();  // another server may know more
    state.rows.isUnbuilt = false;
    // Bars may have been repaired meanwhile.
    if (state.bars.length) return void catchUp((state.bars.list.at(-MAX_REPAIRED) ?? state.bars.first).time);
    return void (state.symbol && show(state.symbol, state.timeframe));
  }
  say(name);
}

function say(name) {
  byId("connection").dataset.state = name;
  byId("connection").textContent = name;
}

function heard(message) {
  if (message.type === "subscribed") message.channel === "candles" && say("live");
  else if (message.code === "not_yet") setTimeout(() => live.again(), AGAIN_MS);
  else if (message.type === "error") say(message.code === "unknown_symbol" ? UNSTREAMED : "error");
  else if (message.type === "watchlist") star.list(message.symbols);
  else if (message.type === "streamed") listed(message);
  else if (message.type === "price") begun(message.data);
  else if (message.type === "missed" && state.bars.length) catchUp(Math.min(...message.data.map((one) => one.from / 1000)));
  else if (message.type === "candles") take(message.data);
}

function listed({dropped, taken_up: takenUp}) {
  if (dropped.includes(state.symbol)) say(UNSTREAMED);
  if (takenUp.includes(state.symbol)) live.again();
}

// Watchlist prices arrive once their symbols are streamed.
function begun(data) {
  const isShown = data.some((one) => one.symbol === state.symbol);
  if (isShown && byId("connection").dataset.state === UNSTREAMED) live.again();
}

function take(data) {
  let isOlder = false;
  for (const one of data) {
    if (one.symbol !== state.symbol || one.timeframe !== state.timeframe) continue;
    const [bar, {last}] = [fromSocket(one), state.bars];
    if (last && isHole(last, bar, state.timeframe)) catchUp(last.time);
    if (!state.bars.put(bar)) {
      isOlder = true;  // a bar that was revised: the chart takes only the last one by itself
      continue;
    }
    chart.update(bar);
    if (!last) trouble("");
    if (last?.time !== bar.time) furtherSoon();
    const said = byId("last");
    if (said) said.textContent = fixed(one.close, state.decimals);
  }
  if (isOlder) {
    chart.draw();
    furtherSoon();
  }
  tell();
}

// --- controls

function chosen(id) {
  if (id === "hollow") chart.isHollow = wanted.is(id);
  if (id === "hollow") return chart.paint();
  if (id === "local-time") return setZone();
  if (id === "profile-box") byId("profile").hidden = !wanted.is(id);
  if (id === "levels") trouble("");
  state.rows.isUnbuilt = false;
  further(state.load, true);
}

for (const name of Object.keys(TIMEFRAMES)) {
  const label = document.createElement("label");
  const input = Object.assign(document.createElement("input"), {type: "radio", name: "timeframe", value: name});
  input.addEventListener("change", () => show(state.symbol, name));
  label.append(input, name);
  byId("timeframes").append(label);
}

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  chart.paint();
  chart.setMarks(drawn(state.marks, colour));
  profile.draw();
}

function setZone() {
  shownTime.isLocal = wanted.is("local-time");
  byId("zone").textContent = `Times are ${shownTime.isLocal ? "local; days are UTC" : "UTC"}.`;
  chart.renewTimes();
  tell();
}

const systemIsDark = matchMedia("(prefers-color-scheme: dark)");
const theme = () => remembered.get("theme") ?? (systemIsDark.matches ? "dark" : "light");
systemIsDark.addEventListener("change", () => setTheme(theme()));
byId("theme").addEventListener("click", () => {
  remembered.set("theme", theme() === "dark" ? "light" : "dark");
  setTheme(theme());
});

function step(by) {
  const names = Object.keys(TIMEFRAMES);
  const next = names[names.indexOf(state.timeframe) + by];
  if (next) show(state.symbol, next);
}

const KEYS = {"/": () => byId("symbol").focus(), "[": () => step(-1), "]": () => step(1), t: () => byId("theme").click(),
  s: () => byId("choices").querySelector("summary").click(), p: () => wanted.toggle("profile-box"),
  l: () => wanted.toggle("levels"), m: () => wanted.toggle("marks"), c: () => byId("chart").focus(), w: () => star.toggle(), u: () => wanted.toggle("local-time"),
  "?": () => { byId("keys").open = !byId("keys").open; }, Escape: () => closeMenus()};

onKeys(document, KEYS, () => byId("login").open);

// Keys of the chart: move the crosshair, which is read aloud, and scroll.
function point(place) {
  const bar = state.bars.list[Math.max(0, Math.min(state.bars.length - 1, place))];
  if (!bar) return;
  state.at = bar.time;
  chart.point(bar);
  const about = state.marks.filter((one) => one.time === bar.time).map((one) => `${one.kind}: ${one.text}`);
  byId("summary").textContent = [inWords(bar, state.timeframe, state.decimals), ...about].join(". ");
  tell();
}

const here = () => (state.at === undefined ? state.bars.length : state.bars.place(state.at));
const CHART_KEYS = {ArrowLeft: () => point(here() - 1), ArrowRight: () => point(here() + 1),
  Home: () => point(0), End: () => point(state.bars.length - 1),
  PageUp: () => chart.pan(-50), PageDown: () => chart.pan(50), "+": () => chart.zoom(0.7), "-": () => chart.zoom(1.4),
  Escape: () => {
    if (closeMenus()) return;
    state.at = undefined;
    chart.point();
    chart.showNewest();
  }};
onKeys(byId("chart"), CHART_KEYS);

byId("skip").addEventListener("click", (event) => {
  event.preventDefault();  // the address names what is shown, not a place in the page
  byId("chart").focus();
});

function address() {
  const [symbol, timeframe] = decodeURIComponent(location.hash.slice(1)).split("/");
  return [symbol, timeframe in TIMEFRAMES ? timeframe : "1m"];
}

addEventListener("hashchange", () => {
  const [symbol, timeframe] = address();
  if (symbol && (symbol !== state.symbol || timeframe !== state.timeframe)) show(symbol, timeframe);
});

// A connection is authenticated at its start, so a login needs a new one.
function entered() {
  live.stop();
  begin();
}

async function begin() {
  try {
    void star.begin(await account.look());  // the chart does not wait for the list
    live.start();
    const streamed = await ask("/api/v1/symbols", {streamed: 1});
    search.streamed = streamed.symbols.map((one) => one.symbol);
    const [symbol, timeframe] = address();
    const listed = symbol || search.streamed[0] || (await ask("/api/v1/symbols")).symbols[0]?.symbol;
    if (listed) await show(listed, timeframe);
    else trouble("No symbols are known yet; try again in a moment.");
  } catch (error) {
    failed(error);
    if (error.status !== 401) setTimeout(begin, AGAIN_MS);
  }
}


// Call the function of a key in `keys`, except in text fields and with modifiers.
function onKeys(target, keys, isOff = () => false) {
  target.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || isOff()) return;
    if (event.target.matches(TEXT_FIELDS) || !Object.hasOwn(keys, event.key)) return;
    event.preventDefault();
    event.stopPropagation();
    keys[event.key]();
  });
}

// For tests.
window.candelabra = {
  bars: () => state.bars.length,
  times: () => state.bars.list.map((bar) => bar.time),
  newest: () => state.bars.last && candle(state.bars.last),
  scrollBack: () => { chart.visible = {from: 0, to: 60}; },
  holes: () => state.bars.list.filter((bar, i, all) => i && isHole(all[i - 1], bar, state.timeframe)).length,
  marks: () => state.marks,
  painted: () => profile.painted,
};

// Closed by default on narrow screens.
if (remembered.get("show profile-box") === null) byId("profile-box").checked = innerWidth > 640;
chart.isHollow = wanted.is("hollow");
byId("profile").hidden = !wanted.is("profile-box");
setZone();
setTheme(theme());
begin();
setInterval(showPrices, DAY_MS);
