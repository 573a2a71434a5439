// The chart: candles, volume, lines over and under them, levels, marks, crosshair.

import {isRising, moment, zone} from "./bars.js";

const MARGINS = {
  plain: {price: {top: 0.12, bottom: 0.22}, volume: {top: 0.82, bottom: 0}},
  divided: {price: {top: 0.12, bottom: 0.4}, volume: {top: 0.64, bottom: 0.22}, below: {top: 0.82, bottom: 0.01}},
};
const isCalm = matchMedia("(prefers-reduced-motion: reduce)");

export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name.startsWith("--") ? name : `--${name}`).trim();
}

export class Chart {
  #chart;
  #candles;
  #volumes;
  #lines = new Map();
  #levels = [];
  #bars;
  #palette = {};
  isHollow = false;

  /**
   * @param moved called when another range is in sight
   * @param looked called with the time that the pointer is at, or undefined
   * @param drawn called after each redraw
   */
  constructor(element, {moved, looked, drawn}) {
    this.#chart = LightweightCharts.createChart(element, {
      autoSize: true,
      timeScale: {timeVisible: true, rightOffset: 4, minBarSpacing: 0.5, tickMarkFormatter: tick},
      crosshair: {mode: LightweightCharts.CrosshairMode.Normal},
      kineticScroll: {touch: !isCalm.matches, mouse: false},
      localization: {locale: "en", timeFormatter: (s) => `${moment(s, "1m")} ${zone()}`},
    });
    this.#candles = this.#chart.addCandlestickSeries({borderVisible: true});
    this.#volumes = this.#chart.addHistogramSeries({priceFormat: {type: "volume"}, priceScaleId: "volume",
      lastValueVisible: false, priceLineVisible: false});
    this.#divide(false);
    this.#chart.timeScale().subscribeVisibleLogicalRangeChange((range) => range && moved(range));
    // Loading older bars moves the crosshair that keys have set: react to a pointer only.
    this.#chart.subscribeCrosshairMove((at) => (at.sourceEvent || !at.point) && looked(at.time));
    // Draws nothing; called at every redraw, because the price scale has no event.
    this.#candles.attachPrimitive({updateAllViews: drawn, paneViews: () => []});
  }

  get visible() { return this.#chart.timeScale().getVisibleLogicalRange(); }
  set visible(range) { this.#chart.timeScale().setVisibleLogicalRange(range); }
  /** Vertical position of a price in pixels; null without a scale. */
  yOf = (price) => this.#candles.priceToCoordinate(price);

  paint() {
    this.#palette = Object.fromEntries(["up", "down", "up-soft", "down-soft", "back"].map((name) => [name, colour(name)]));
    const {up, down, back} = this.#palette;
    this.#chart.applyOptions({
      layout: {background: {color: back}, textColor: colour("front"), fontFamily: "system-ui, sans-serif"},
      grid: {vertLines: {color: colour("grid")}, horzLines: {color: colour("grid")}},
      rightPriceScale: {borderColor: colour("line")}, timeScale: {borderColor: colour("line")}});
    this.#candles.applyOptions({upColor: this.isHollow ? back : up, downColor: down, borderUpColor: up,
      borderDownColor: down, wickUpColor: up, wickDownColor: down});
    for (const {series, line} of this.#lines.values()) series.applyOptions({color: colour(line.colour)});
    for (const level of this.#levels) level.applyOptions({color: colour("accent")});
    this.draw();
  }

  /** Write the times of the axis again. */
  renewTimes() {
    this.#chart.timeScale().applyOptions({tickMarkFormatter: (time, kind) => tick(time, kind)});
  }

  setTick(decimals, tick, timeVisible) {
    this.#candles.applyOptions({priceFormat: {type: "price", precision: decimals, minMove: +tick}});
    this.#chart.applyOptions({timeScale: {timeVisible}});
  }

  /** Show these bars; `draw` draws later changes of the object. */
  show(bars) {
    this.#bars = bars;
    for (const name of this.#lines.keys()) this.#line(name).setData([]);
    this.draw();
  }

  draw() {
    const list = this.#bars?.list ?? [];
    this.#candles.setData(list.map(candle));
    this.#volumes.setData(list.map((bar) => this.#volume(bar)));
  }

  /** Update the newest bar. */
  update(bar) {
    this.#candles.update(candle(bar));
    this.#volumes.update(this.#volume(bar));
  }

  showNewest(count = 120) {
    const end = this.#bars?.length ?? 0;
    this.visible = {from: end - count, to: end + 4};
  }

  /** Scroll by this many bars. */
  pan(bars) {
    const range = this.visible;
    if (range) this.visible = {from: range.from + bars, to: range.to + bars};
  }

  zoom(factor) {
    const range = this.visible;
    if (!range) return;
    const width = Math.min(5000, Math.max(10, (range.to - range.from) * factor));
    this.visible = {from: range.to - width, to: range.to};
  }

  /** Put the crosshair on a bar; without a bar, remove it. */
  point(bar) {
    if (!bar) return this.#chart.clearCrosshairPosition();
    const place = this.#bars.place(bar.time);
    const range = this.visible;
    if (range && (place < range.from || place > range.to)) {
      const width = range.to - range.from;
      this.visible = {from: place - width / 2, to: place + width / 2};
    }
    this.#chart.setCrosshairPosition(+bar.close, bar.time, this.#candles);
  }

  /** Set the lines over the candles (`under` false) and in the pane below. */
  setLines(wanted) {
    for (const [name, {series}] of this.#lines) {
      if (wanted.some(({line}) => line.column === name)) continue;
      this.#chart.removeSeries(series);
      this.#lines.delete(name);
    }
    const isDivided = wanted.some(({under}) => under);
    for (const {line, points, under, marks, decimals} of wanted) {
      const isNew = !this.#lines.has(line.column);
      const series = this.#line(line.column, line, under, decimals);
      series.setData(line.isHistogram ? points.map((one) => ({...one,
        color: this.#palette[one.value < 0 ? "down-soft" : "up-soft"]})) : points);
      if (isNew) for (const price of marks) {
        series.createPriceLine({price, color: colour("faint"), lineWidth: 1, lineStyle: 3, axisLabelVisible: false});
      }
    }
    this.#divide(isDivided);
  }

  setLevels(levels) {
    for (const line of this.#levels) this.#candles.removePriceLine(line);
    this.#levels = levels.map(({price, title}) => this.#candles.createPriceLine(
      {price: +price, title, color: colour("accent"), lineWidth: 1, lineStyle: 2}));
  }

  setMarks(marks) {
    this.#candles.setMarkers(marks);
  }

  // --- inside

  #volume(bar) {
    return {time: bar.time, value: +bar.volume, color: this.#palette[isRising(bar) ? "up-soft" : "down-soft"]};
  }

  #line(name, line, under, decimals) {
    const known = this.#lines.get(name);
    if (known) return known.series;
    const look = {color: colour(line.colour), lineWidth: line.isHistogram ? 1 : 1.5, lineStyle: line.dash ?? 0,
      lastValueVisible: under, priceLineVisible: false, crosshairMarkerVisible: false,
      priceScaleId: under ? "below" : "right", priceFormat: {type: "price", precision: decimals, minMove: 10 ** -decimals},
      ...(line.isHistogram ? {base: 0} : {})};
    const series = line.isHistogram ? this.#chart.addHistogramSeries(look) : this.#chart.addLineSeries(look);
    this.#lines.set(name, {series, line});
    return series;
  }

  #divide(isDivided) {
    const margins = isDivided ? MARGINS.divided : MARGINS.plain;
    this.#candles.priceScale().applyOptions({scaleMargins: margins.price});
    this.#volumes.priceScale().applyOptions({scaleMargins: margins.volume});
    for (const {series} of this.#lines.values()) {
      if (series.options().priceScaleId === "below") series.priceScale().applyOptions({scaleMargins: MARGINS.divided.below});
    }
  }
}

// Kinds of the library: year, month, day, time, time with seconds. Days change at UTC midnight.
function tick(time, kind) {
  const text = moment(time, kind < 3 ? "1d" : "1m");
  return [text.slice(0, 4), text.slice(0, 7), text.slice(5, 10)][kind] ?? text.slice(11, 16);
}

export const candle = (bar) => ({time: bar.time, open: +bar.open, high: +bar.high, low: +bar.low, close: +bar.close});
