"""Recordings of the real exchange with disconnects, bounded reordering and repeats.

Whatever is done to them, an aggregator outputs no wrong minute: each equals the undisturbed
recording, or the exchange's own candle; or it is partial, and REST is asked for it.
"""

from __future__ import annotations

import csv
import functools
import gzip
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include.binance.streams.messages import AggTrade, Kline, Trade, decode, microseconds
from include.domain.candle_builder import CandleBuilder
from include.domain.candles import Candle, CandleCandidate, Source, Status
from include.domain.instruments import Instrument, Market
from include.domain.timeframes import MINUTE_US, SECOND_US, minute_of
from streamer.candles.aggregation import SymbolAggregator
from streamer.candles.minutes import Timing
from tests.parity.test_recorded_frames import frames_2021

pytestmark = pytest.mark.recorded

Frame = AggTrade | Trade | Kline
FEW = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@dataclass(frozen=True)
class Disturbance:
    """What is done to a recording.

    Attributes:
        cuts: shares of the recording at which a connection is lost, and how much of it is missed.
        reach: frames by which a frame may be late.
        repeated: share of frames that are repeated.
    """

    seed: int
    cuts: tuple[tuple[float, float], ...] = ()
    reach: int = 0
    repeated: float = 0.0

    def apply(self, frames: Sequence[Frame]) -> Iterator[Frame | None]:
        """The disturbed frames; None where the connection is lost."""
        draws = random.Random(self.seed)
        placed = []
        for number, frame in enumerate(frames):
            placed.append((number + draws.uniform(0, self.reach), number, frame))
            if draws.random() < self.repeated:
                placed.append((number + draws.uniform(0, self.reach + 5), number, frame))
        placed.sort(key=lambda one: one[:2])
        lost = [(at * len(frames), (at + length) * len(frames)) for at, length in self.cuts]
        for place, _, frame in placed:
            if any(start <= place < end for start, end in lost):
                yield None
            else:
                yield frame


disturbances = st.builds(
    Disturbance,
    seed=st.integers(0, 2**32),
    cuts=st.lists(
        st.tuples(st.floats(0, 1), st.floats(0.001, 0.3)), max_size=3
    ).map(tuple),
    reach=st.sampled_from([0, 0, 1, 3, 20]),
    repeated=st.sampled_from([0.0, 0.01, 0.3]),
)  # fmt: skip


@dataclass
class AggregatorLog:
    """The events of an aggregator."""

    stored: dict[int, CandleCandidate] = field(default_factory=dict)
    asked: set[int] = field(default_factory=set)
    holes: int = 0
    until_us: int = 0
    """The exchange's time at the end of the recording."""

    def candle_closed(self, offer: CandleCandidate) -> None:
        held = self.stored.get(offer.candle.open_time_us)
        if held is None or _rank(offer) >= _rank(held):
            self.stored[offer.candle.open_time_us] = offer

    def rest_needed(self, symbol: str, start_us: int, end_us: int, cause: str) -> None:
        self.asked.update(range(start_us, end_us, MINUTE_US))

    def trades_missing(
        self, symbol: str, first_id: int, last_id: int, from_us: int, to_us: int
    ) -> None:
        self.holes += 1

    def resubscribe_needed(self, symbol: str, reason: str) -> None:
        """Ignored: a recording cannot answer."""

    def symbol_silent(self, symbol: str, since_us: int) -> None:
        """Expected where a recording has a gap."""

    def silence_ended(self, symbol: str, since_us: int, until_us: int) -> None:
        """Expected after a gap."""

    def trade_ids_restarted(self, symbol: str, expected_id: int, trade_id: int, at_us: int) -> None:
        raise AssertionError("no recording has a ticker that was used again")

    def open_candle_corrected(self, symbol: str, open_time_us: int, values: list[str]) -> None:
        pass

    def kline_disputed(self, kline: CandleCandidate) -> None:
        raise AssertionError(f"no recording has a wrong kline: {kline}")

    def kline_differs(self, symbol: str, open_time_us: int, values: list[str]) -> None:
        raise AssertionError(
            f"the aggregated candle of {symbol} at {open_time_us} differs: {values}"
        )


def _rank(offer: CandleCandidate) -> tuple[int, int]:
    return offer.rank, offer.candle.trade_count


def play(
    frames: Sequence[Frame], disturbance: Disturbance, market: Market, *, klines: bool
) -> AggregatorLog:
    """An aggregator's output for the disturbed frames of one symbol."""
    heard = AggregatorLog()
    name = frames[0].symbol
    one = SymbolAggregator(
        Instrument(name, market, name, "", "TRADING", Decimal("0.01"), Decimal("0.001")),
        Timing(
            grace_us=250_000,
            kline_timeout_us=3 * SECOND_US,
            expects_klines=klines,
            has_contiguous_ids=market is Market.SPOT,
        ),
        heard,
    )
    exchange_us = 0
    is_connected = False
    for frame in disturbance.apply(frames):
        if frame is None:
            if is_connected:
                one.disconnected()
            is_connected = False
            continue
        exchange_us = max(exchange_us, microseconds(frame.event_time))
        if not is_connected:
            one.connected(exchange_us)
            is_connected = True
        if isinstance(frame, Kline):
            one.on_kline(frame)
        else:
            one.on_trade(frame)
        one.on_clock(exchange_us)
    one.on_clock(exchange_us + 5 * SECOND_US)
    heard.until_us = exchange_us
    return heard


def assert_nothing_false(heard: AggregatorLog, true: dict[int, Candle]) -> None:
    """Each minute is right, or partial and requested by REST, or only requested by REST."""
    for minute, candle in true.items():
        offer = heard.stored.get(minute)
        if offer is None or offer.status is Status.PARTIAL:
            assert minute in heard.asked, minute
        else:
            assert offer.candle.values == candle.values, (minute, offer.source)


# --- the recordings


@functools.cache
def spot_trades(folder: Path) -> tuple[Trade, ...]:
    """Eleven minutes of BTCUSDT over a midnight; ids are contiguous."""
    return tuple(
        trade
        for name in ("btcusdt_20240808.gz", "btcusdt_20240809.gz")
        for trade in _trades(folder / "ws-spot-20240808" / name)
    )


@functools.cache
def futures_trades(folder: Path) -> tuple[Trade, ...]:
    """Six minutes of BTCUSDT, void trades among them; ids skip by design."""
    return tuple(_trades(folder / "ws-usdm-vs-klines-20240808" / "btcusdt_20240808.gz"))


def _trades(file: Path) -> Iterator[Trade]:
    with gzip.open(file, "rt") as lines:
        for line in lines:
            if '"btcusdt@trade"' in line:
                trade = decode(line.split(" ", 1)[1].strip())
                assert isinstance(trade, Trade)
                yield trade


@functools.cache
def spot_frames_2021(folder: Path) -> dict[str, tuple[Frame, ...]]:
    """Aggregate trades and klines of three symbols over 91 s, in the order they came."""
    found: dict[str, list[Frame]] = {}
    for frame in frames_2021(folder / "ws-cryptofeed-2021" / "BINANCE-ee25be.0.8980a803.gz"):
        found.setdefault(frame.symbol, []).append(frame)
    return {symbol: tuple(frames) for symbol, frames in found.items()}


def aggregated(trades: Sequence[Trade]) -> dict[int, Candle]:
    """Every whole minute of a recording: all but its first and its last."""
    builders: dict[int, CandleBuilder] = {}
    for trade in trades:
        if trade.price and trade.quantity:
            minute = minute_of(microseconds(trade.trade_time))
            builders.setdefault(minute, CandleBuilder(trade.symbol, minute)).add(trade)
    return {minute: builders[minute].candle() for minute in sorted(builders)[1:-1]}


# --- what holds of them


@FEW
@given(disturbance=disturbances)
def test_disturbed_agg_trades_and_klines_give_only_the_exchanges_minutes(
    recorded_data: Path, disturbance: Disturbance
) -> None:
    for frames in spot_frames_2021(recorded_data).values():
        closed = {
            microseconds(frame.body.open_time): frame.candle(frame.symbol)
            for frame in frames
            if isinstance(frame, Kline) and frame.body.is_closed
        }
        assert closed
        heard = play(frames, disturbance, Market.SPOT, klines=True)
        for minute, candle in closed.items():
            offer = heard.stored.get(minute)
            if offer is None or offer.status is Status.PARTIAL:
                is_over = minute <= heard.until_us - MINUTE_US
                was_heard = _has_frames(disturbance, frames, minute)
                assert minute in heard.asked or not (is_over and was_heard)
            elif offer.status is Status.VERIFIED:
                assert offer.candle.values == candle.values
            else:
                assert offer.candle.values == candle.values or minute in heard.asked


def _has_frames(disturbance: Disturbance, frames: Sequence[Frame], minute: int) -> bool:
    """Whether anything of a minute, or of one before it, came at all."""
    return any(
        minute_of(microseconds(frame.event_time)) <= minute
        for frame in disturbance.apply(frames)
        if frame is not None
    )


@settings(FEW, max_examples=12)
@given(disturbance=disturbances)
def test_disturbed_contiguous_trades_give_only_their_minutes(
    recorded_data: Path, disturbance: Disturbance
) -> None:
    trades = spot_trades(recorded_data)
    heard = play(trades, disturbance, Market.SPOT, klines=False)
    first_us = min(heard.stored, default=heard.until_us)
    over = {
        minute: candle
        for minute, candle in aggregated(trades).items()
        if first_us <= minute <= heard.until_us - MINUTE_US
    }
    assert_nothing_false(heard, over)


@pytest.mark.parametrize("repeated", [0.0, 0.01, 0.5])
@pytest.mark.parametrize("recording", [spot_trades, futures_trades])
def test_repeated_trades_change_no_minute(
    recorded_data: Path, recording: object, repeated: float
) -> None:
    assert callable(recording)
    trades = recording(recorded_data)
    market = Market.SPOT if recording is spot_trades else Market.UM
    heard = play(trades, Disturbance(1, repeated=repeated), market, klines=False)
    true = aggregated(trades)
    assert len(true) >= 4
    for minute, candle in true.items():
        assert heard.stored[minute].candle.values == candle.values
        assert heard.stored[minute].source is Source.STREAM
    assert heard.holes == 0


@settings(FEW, max_examples=12)
@given(
    cuts=st.lists(st.tuples(st.floats(0, 1), st.floats(0.001, 0.3)), min_size=1, max_size=3),
    repeated=st.sampled_from([0.0, 0.3]),
)
def test_disturbed_futures_trades_give_only_the_official_minutes(
    recorded_data: Path, cuts: list[tuple[float, float]], repeated: float
) -> None:
    folder = recorded_data / "ws-usdm-vs-klines-20240808"
    with (folder / "BTCUSDT-1m-2024-08.excerpt-20240808T2354-20240809T0005.csv").open() as file:
        rows = {int(row["open_time"]) * 1000: row for row in csv.DictReader(file)}
    names = ("open", "high", "low", "close", "volume", "quote_volume", "count",
             "taker_buy_volume", "taker_buy_quote_volume")  # fmt: skip
    trades = futures_trades(recorded_data)
    heard = play(
        trades, Disturbance(2, cuts=tuple(cuts), repeated=repeated), Market.UM, klines=False
    )
    for minute in aggregated(trades):
        offer = heard.stored.get(minute)
        if offer is None or offer.status is Status.PARTIAL:
            is_known = min(heard.stored, default=minute + 1) <= minute <= heard.until_us - MINUTE_US
            assert minute in heard.asked or not is_known
        else:
            official = tuple(Decimal(rows[minute][name]) for name in names)
            assert tuple(Decimal(value) for value in offer.candle.values) == official


def test_undisturbed_recording_gives_all_its_minutes(recorded_data: Path) -> None:
    for recording, market in ((spot_trades, Market.SPOT), (futures_trades, Market.UM)):
        trades = recording(recorded_data)
        heard = play(trades, Disturbance(0), market, klines=False)
        for minute in aggregated(trades):
            assert heard.stored[minute].status is not Status.PARTIAL, minute
