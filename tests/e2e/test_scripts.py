"""The page's scripts by themselves, in a real browser: each is read, and computes."""

from __future__ import annotations

import functools
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from serving.http.routes.page import FOLDER
from tests.e2e.browser import PROGRAM, Page, browsing

pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason="no Chromium: apt-get install chromium"),
    pytest.mark.timeout(120),
]

OF_PAGES = {"page.js", "docs.js"}
"""They need their page."""
MODULES = sorted(one.name for one in FOLDER.glob("*.js") if one.name not in OF_PAGES)

BAR = {"open": "1", "high": "3", "low": "0.5", "close": "2", "volume": "1234567"}
BUCKETS = [
    {"price_low": "10", "price_high": "11", "volume": "4", "bid_volume": "1", "ask_volume": "3"},
    {"price_low": "11", "price_high": "12", "volume": "8", "bid_volume": "6", "ask_volume": "2"},
    {"price_low": "90", "price_high": "91", "volume": "1", "bid_volume": "1", "ask_volume": "0"},
]
SESSION = {"point_of_control": "11.5", "value_area_low": "11", "value_area_high": "12"}

CASES: list[tuple[str, str, Any]] = [
    # prices are text: zeros may go, digits may not
    ("bars", "fixed('64333.02000000', 2)", "64333.02"),
    ("bars", "fixed('0.00000001', 8)", "0.00000001"),
    ("bars", "fixed('5', 2)", "5.00"),
    ("bars", "fixed('7.000', 0)", "7"),
    ("bars", "fixed('10.005', 2)", "10.01"),
    ("bars", "fixed('90071992547409930.10', 1)", "90071992547409930.1"),
    ("bars", "decimalsOf('0.01000000')", 2),
    ("bars", "decimalsOf('100')", 0),
    ("bars", "stepOf([{close: '1.250'}, {close: '3'}])", "0.01"),
    ("bars", "stepOf([])", "1"),
    # a bar belongs to its time, whatever the browser's zone
    ("bars", "moment(1700000040, '5m')", "2023-11-14 22:14"),
    ("bars", "moment(1698796800, '1M')", "2023-11-01"),
    ("bars", ("(() => { shownTime.isLocal = true; const told = [moment(60, '1m') =="
     " new Date(60000 - new Date(60000).getTimezoneOffset() * 60000).toISOString().slice(0, 16)"
     ".replace('T', ' '), moment(60, '1d'), zone()]; shownTime.isLocal = false; return told; })()"),
     [True, "1970-01-01", "local time"]),
    # periods of the user's own; what the loaded bars cannot give is not shown
    ("own", "sma([1, 2, 3, 6].map((close, time) => ({time, close})), 3)",
     [{"time": 2, "value": 2}, {"time": 3, "value": 11 / 3}]),
    ("own", "ema([...Array(12).keys()].map((time) => ({time, close: '4'})), 2)",
     [{"time": 10, "value": 4}, {"time": 11, "value": 4}]),
    ("own", ("rsi([1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1].map((close, time) => ({time, close})), 2)"
     ".map((one) => Math.round(one.value))"), [33]),
    ("own", "['14', '1', '2.5', '', '1001', 'x'].map((one) => periodOf(one) ?? null)",
     [14, None, None, None, None, None]),
    ("bars", "dayOf(1700000040)", "2023-11-14"),
    ("bars", "isHole({time: 0}, {time: 60}, '1m')", False),
    ("bars", "isHole({time: 0}, {time: 120}, '1m')", True),
    ("bars", "isHole({time: 1696118400}, {time: 1698796800}, '1M')", False),
    ("bars", f"inWords({{time: 0, ...{BAR}}}, '1m', 1)",
     "1970-01-01 00:00 UTC: open 1.0, high 3.0, low 0.5, close 2.0, volume 1.23M"),
    ("bars", ("levelsOf({all_time_high: '9', all_time_low: null, fibonacci_23_6: '5',"
     " fibonacci_38_2: null, fibonacci_50: null, fibonacci_61_8: null, fibonacci_78_6: null})"),
     [{"title": "High", "price": "9"}, {"title": "23.6 %", "price": "5"}]),
    # bars in order, each once
    ("bars", ("(() => { const b = new Bars();"
     " const told = [60, 180, 120, 180].map((time, i) => b.put({time, i}));"
     " return [told, b.list.map((one) => [one.time, one.i])]; })()"),
     [[True, True, False, True], [[60, 0], [120, 2], [180, 3]]]),
    ("bars", ("(() => { const b = new Bars(); b.put({time: 180});"
     " return [b.putBefore([{time: 60}, {time: 120}, {time: 180}]), b.putBefore([]),"
     " b.list.map((one) => one.time), b.at(120).time, b.at(121) ?? null]; })()"),
     [2, 0, [60, 120, 180], 120, None]),
    # a mark whose bar is missing goes to the next bar
    ("marks", ("placed({kind: 'gap', time: 90}, Object.assign(new b.Bars(),"
     " {list: [{time: 60}, {time: 180}]})).map((one) => one.time)"), [180]),
    ("marks", ("placed({kind: 'gap', time: 300}, Object.assign(new b.Bars(),"
     " {list: [{time: 60}, {time: 180}]})).map((one) => one.time)"), [180]),
    ("marks", ("placed({kind: 'gap', time: 0}, Object.assign(new b.Bars(),"
     " {list: [{time: 60}, {time: 180}]}))"), []),
    ("marks", ("drawn([{kind: 'gap', time: 1}, {kind: 'gap', time: 1}, {kind: 'outage', time: 1}],"
     " (name) => name).map((one) => [one.text, one.position, one.color])"),
     [["G", "aboveBar", "--mark-gap"], ["O", "belowBar", "--mark-outage"]]),
    ("marks", "counted([{kind: 'gap'}, {kind: 'gap'}, {kind: 'partial'}])",
     {"repaired": 0, "partial": 1, "gap": 2, "outage": 0}),
    # a profile is drawn at its prices, and no wider than its panel
    ("profile", (f"rowsOf({BUCKETS}, {SESSION},"
     " {height: 100, width: 80, yOf: (price) => (20 - price) * 10})"),
     [{"y": 90, "height": 9, "bid": 10, "ask": 30, "isValue": False, "isControl": False},
      {"y": 80, "height": 9, "bid": 60, "ask": 20, "isValue": True, "isControl": True}]),
    ("profile", ("rowsOf([{price_low: '1', price_high: '2', volume: '1'}],"
     " {}, {height: 1, width: 1, yOf: () => null})"), []),
    ("profile", "keptInWords({is_complete: false, reason: 'the day is not over'})",
     "some trades kept: the day is not over"),
    ("search", ("joined(' eth', ['BTCUSDT', 'ETHUSDT.P'], [{symbol: 'ETHUSDT', description: 'x'},"
     " {symbol: 'BETHUSDT', description: 'y'}]).map((one) => [one.symbol, one.isStreamed])"),
     [["ETHUSDT.P", True], ["ETHUSDT", False], ["BETHUSDT", False]]),
    ("indicators", "warmUpOf(OVERLAYS.sma_200)", "from bar 200 on"),
    (
        "indicators",
        (
            "(() => { const r = new Rows(); const line = OVERLAYS.sma_20.lines[0];"
            " r.put({time: 120, sma_20: 5}); r.put({time: 60, sma_20: null});"
            " return [r.said(line, 180, 1), r.said(line, 180, 1, true), r.said(line, 60, 1),"
            " r.points([{time: 60}, {time: 120}, {time: 180}], 'sma_20')]; })()"
        ),
        ["not built yet", "5.0", "warming up: from bar 20 on", [{"time": 120, "value": 5}]],
    ),
    ("indicators", "warmUpOf(OSCILLATORS.macd)", "from bar 34 on"),
    ("indicators", ("(() => { const r = new Rows(); const line = OVERLAYS.sma_20.lines[0];"
     " const before = r.said(line, 60, 2); r.trouble = 'no'; return [before, r.said(line, 60, 2)];"
     " })()"), ["not built yet", "no"]),
    # the star shows whether the displayed symbol is on the list; hidden, it does nothing
    ("star", ("(() => { const button = document.createElementNS("
     "'http://www.w3.org/1999/xhtml', 'button'); const s = new Star(button, {});"
     " s.show('BTCUSDT'); const before = [button.textContent, button.ariaPressed];"
     " s.list(['BTCUSDT']); const on = [button.textContent, button.ariaPressed, button.ariaLabel];"
     " s.show('ETHUSDT'); return [before, on, button.ariaPressed]; })()"),
     [["☆", "false"], ["★", "true", "BTCUSDT on the watchlist"], "false"]),
]  # fmt: skip


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def folder_url() -> Iterator[str]:
    """The page's folder, as files."""
    handler = functools.partial(Quiet, directory=str(FOLDER))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join(10)


@pytest.fixture
async def page(folder_url: str) -> AsyncIterator[Page]:
    async with browsing() as found:
        await found.open(f"{folder_url}/icon.svg")
        yield found


async def test_every_module_loads_and_computes(page: Page) -> None:
    for name in MODULES:
        place = f"globalThis['{name.removesuffix('.js')}']"
        await page.run(f"import('/{name}').then((found) => {{ {place} = found; }})")
    for module, expression, expected in CASES:
        names = ", ".join(await page.run(f"Object.keys(globalThis['{module}'])"))
        script = f"(({{{names}}}, b) => {expression})(globalThis['{module}'], globalThis['bars'])"
        assert await page.run(script) == expected, expression
    assert [one for one in page.complaints if "favicon.ico" not in one] == []
