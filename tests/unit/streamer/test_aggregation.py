"""The aggregator against a little exchange written here, with every misfortune on the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.binance.frames import AggTrade, Kline, KlineBody
from include.domain.candles import Candle, Offer, Source, Status
from include.domain.instruments import Instrument, Market
from include.domain.timeframes import MINUTE_US, SECOND_US
from streamer.aggregation import MINUTES_KEPT, SymbolAggregator
from streamer.minutes import Timing

T0 = 1_700_000_000_000_000 // MINUTE_US * MINUTE_US
GRACE = 250_000
TIMEOUT = 3 * SECOND_US
INSTRUMENT = Instrument(
    "BTCUSDT", Market.SPOT, "BTC", "USDT", "TRADING", Decimal("0.01"), Decimal("0.00001")
)
ROUNDED = Instrument(
    "ETHBTC", Market.SPOT, "ETH", "BTC", "TRADING", Decimal("0.00001"), Decimal("0.0001")
)


@dataclass
class Results:
    offers: list[Offer] = field(default_factory=list)
    asked: list[tuple[int, str]] = field(default_factory=list)
    doubted: int = 0
    reasons: list[str] = field(default_factory=list)
    silences: list[tuple[int, int | None]] = field(default_factory=list)
    restarts: list[tuple[int, int]] = field(default_factory=list)
    holes: list[tuple[int, int]] = field(default_factory=list)
    differing: list[list[str]] = field(default_factory=list)

    def settle(self, offer: Offer) -> None:
        self.offers.append(offer)

    def ask_rest(self, symbol: str, start_us: int, end_us: int, cause: str) -> None:
        self.asked += [(minute, cause) for minute in range(start_us, end_us, MINUTE_US)]

    def doubt(self, symbol: str, reason: str) -> None:
        self.doubted += 1
        self.reasons.append(reason)

    def silent(self, symbol: str, since_us: int) -> None:
        self.silences.append((since_us, None))

    def speaks_again(self, symbol: str, since_us: int, until_us: int) -> None:
        self.silences.append((since_us, until_us))

    def ids_restarted(self, symbol: str, expected_id: int, trade_id: int, at_us: int) -> None:
        self.restarts.append((expected_id, trade_id))

    def hole(self, symbol: str, first_id: int, last_id: int, from_us: int, to_us: int) -> None:
        self.holes.append((first_id, last_id))

    def differs(self, symbol: str, open_time_us: int, values: list[str]) -> None:
        self.differing.append(values)

    def stored(self) -> dict[int, Offer]:
        """What the merge would keep: the highest rank, then the most trades."""
        best: dict[int, Offer] = {}
        for offer in self.offers:
            held = best.get(offer.candle.open_time_us)
            if held is None or (offer.rank, offer.candle.trade_count) > (
                held.rank,
                held.candle.trade_count,
            ):
                best[offer.candle.open_time_us] = offer
        return best


def trade(number: int, at_us: int, *, price: str = "10", quantity: str = "1", fills: int = 1,
          maker: bool = False, first: int | None = None) -> AggTrade:  # fmt: skip
    first = number if first is None else first
    return AggTrade(
        event_time=at_us + 5_000, symbol="BTCUSDT", id=number, price=Decimal(price),
        quantity=Decimal(quantity), first_trade_id=first, last_trade_id=first + fills - 1,
        trade_time=at_us, is_buyer_maker=maker,
    )  # fmt: skip


def kline_of(trades: list[AggTrade], open_us: int, *, closed: bool, at_us: int,
             previous: str = "10", **changes: object) -> Kline:  # fmt: skip
    """The exchange's candle, computed with plain sums."""
    inside = [t for t in trades if open_us <= t.trade_time < open_us + MINUTE_US]
    prices = [t.price for t in inside] or [Decimal(previous)]
    takers = [t for t in inside if not t.is_buyer_maker]
    values: dict[str, object] = {
        "open_time": open_us, "interval": "1m",
        "first_trade_id": inside[0].first_trade_id if inside else -1,
        "last_trade_id": inside[-1].last_trade_id if inside else -1,
        "open": prices[0], "close": prices[-1], "high": max(prices), "low": min(prices),
        "volume": sum((t.quantity for t in inside), Decimal(0)),
        "trade_count": sum(t.last_trade_id - t.first_trade_id + 1 for t in inside),
        "is_closed": closed,
        "quote_volume": sum((t.quantity * t.price for t in inside), Decimal(0)),
        "taker_buy_volume": sum((t.quantity for t in takers), Decimal(0)),
        "taker_buy_quote_volume": sum((t.quantity * t.price for t in takers), Decimal(0)),
    }  # fmt: skip
    return Kline(at_us, "BTCUSDT", KlineBody(**(values | changes)))  # type: ignore[arg-type]


def aggregator(
    results: Results, *, instrument: Instrument = INSTRUMENT, **timing: object
) -> SymbolAggregator:
    return SymbolAggregator(
        instrument,
        Timing(grace_us=GRACE, kline_timeout_us=TIMEOUT, **timing),  # type: ignore[arg-type]
        results,
    )


def begin(one: SymbolAggregator) -> None:
    """Connected in time for the minute T0, with all before it in the table."""
    one.resume_after(T0 - MINUTE_US)
    one.connected(T0 - 10)


def minute_trades(minute: int, first: int, count: int = 6) -> list[AggTrade]:
    """Trades of one minute, ids from ``first``."""
    step = MINUTE_US // (count + 1)
    return [
        trade(
            first + n,
            T0 + minute * MINUTE_US + (n + 1) * step,
            price=str(10 + (n * 7 + minute) % 5),
            quantity=f"0.{n + 1}",
            maker=n % 3 == 0,
        )
        for n in range(count)
    ]


@pytest.fixture
def results() -> Results:
    return Results()


def test_a_whole_minute_equal_to_its_closed_kline_is_verified(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    trades = minute_trades(0, 1)
    for each in trades:
        one.on_trade(each)
    one.on_kline(kline_of(trades, T0, closed=True, at_us=T0 + MINUTE_US + 50_000))
    (offer,) = results.offers
    assert (offer.status, offer.source) == (Status.VERIFIED, Source.KLINE)
    assert offer.evidence_at_us == T0 + MINUTE_US + 50_000
    assert not results.differing
    assert one.live_candles() == []


def test_a_kline_that_runs_ahead_waits_for_its_trades(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    trades = minute_trades(0, 1)
    for each in trades[:-1]:
        one.on_trade(each)
    one.on_kline(kline_of(trades, T0, closed=True, at_us=T0 + MINUTE_US))
    assert results.offers == []
    one.on_trade(trades[-1])
    assert [offer.status for offer in results.offers] == [Status.VERIFIED]
    assert not results.differing


def test_where_fold_and_kline_differ_both_are_offered(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    trades = minute_trades(0, 1)
    for each in trades:
        one.on_trade(each)
    one.on_kline(kline_of(trades, T0, closed=True, at_us=T0 + MINUTE_US, high=Decimal(99)))
    assert results.differing == [["high"]]
    assert [o.source for o in results.offers] == [Source.STREAM, Source.KLINE]
    assert results.stored()[T0].candle.high == 99


def test_rounded_quotes_are_no_difference(results: Results) -> None:
    one = aggregator(results, instrument=ROUNDED)
    begin(one)
    trades = minute_trades(0, 1)
    for each in trades:
        one.on_trade(each)
    kline = kline_of(trades, T0, closed=True, at_us=T0 + MINUTE_US, quote_volume=Decimal("1.5"))
    one.on_kline(kline)
    assert results.differing == []
    assert results.stored()[T0].candle.quote_volume == Decimal("1.5")


def test_a_minute_without_kline_is_unconfirmed_and_asked_of_rest(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    for each in minute_trades(0, 1):
        one.on_trade(each)
    one.on_clock(T0 + MINUTE_US + GRACE - 1)
    assert not one.live_candles()[0][1]
    one.on_clock(T0 + MINUTE_US + GRACE)
    assert one.live_candles()[0][1]  # closed and readable, not settled
    assert results.offers == []
    one.on_clock(T0 + MINUTE_US + GRACE + TIMEOUT)
    assert [o.status for o in results.offers] == [Status.UNCONFIRMED]
    assert results.asked == [(T0, "no closed kline")]
    assert results.doubted == 1


def test_a_late_kline_still_verifies(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    trades = minute_trades(0, 1)
    for each in trades:
        one.on_trade(each)
    one.on_clock(T0 + MINUTE_US + GRACE + TIMEOUT)
    one.on_kline(kline_of(trades, T0, closed=True, at_us=T0 + MINUTE_US + 9 * SECOND_US))
    assert results.stored()[T0].status is Status.VERIFIED


def test_rounded_quotes_wait_for_the_exchange(results: Results) -> None:
    one = aggregator(results, instrument=ROUNDED)
    begin(one)
    for each in minute_trades(0, 1):
        one.on_trade(each)
    one.on_clock(T0 + MINUTE_US + GRACE + TIMEOUT)
    assert results.offers == []
    assert results.asked == [(T0, "no closed kline")]


def test_a_silent_minute_is_a_row_only_because_the_exchange_says_so(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    one.on_kline(kline_of([], T0, closed=True, at_us=T0 + MINUTE_US, previous="7"))
    one.on_clock(T0 + 2 * MINUTE_US + GRACE + TIMEOUT)
    (offer,) = results.offers
    assert offer.candle.is_silent
    assert offer.candle.close == 7
    assert results.asked == [(T0 + MINUTE_US, "nothing came")]


def test_a_minute_joined_midway_without_a_seed_is_partial(results: Results) -> None:
    one = aggregator(results, expects_klines=False)
    trades = minute_trades(0, 1) + minute_trades(1, 7)
    one.connected(T0 + 20 * SECOND_US)
    for each in trades[3:]:
        one.on_trade(each)
    one.on_clock(T0 + 2 * MINUTE_US + GRACE)
    assert [o.status for o in results.offers] == [Status.PARTIAL, Status.UNCONFIRMED]


@pytest.mark.parametrize("cut", range(6))
@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_a_minute_joined_midway_is_seeded_from_a_kline(cut: int, ahead: int) -> None:
    """Wherever the connection begins and however far the kline runs ahead of its trades."""
    results = Results()
    one = aggregator(results)
    trades = minute_trades(0, 1)
    seen = min(cut + ahead, len(trades))
    one.connected(trades[cut].trade_time - 1)
    kline = kline_of(trades[:seen], T0, closed=False, at_us=trades[cut].trade_time)
    one.on_trade(trades[cut])
    one.on_kline(kline)
    for each in trades[cut + 1 :]:
        one.on_trade(each)
    (shown, _) = one.live_candles()[0]
    assert shown == kline_of(trades, T0, closed=False, at_us=0).candle("BTCUSDT")
    one.on_clock(T0 + MINUTE_US + GRACE + TIMEOUT)
    assert results.stored()[T0].status is Status.UNCONFIRMED


def test_a_kline_that_ends_inside_an_agg_trade_is_waited_out(results: Results) -> None:
    one = aggregator(results)
    trades = [
        trade(1, T0 + 1, first=10),
        trade(2, T0 + SECOND_US, first=11, fills=5),
        trade(3, T0 + 2 * SECOND_US, first=16),
    ]
    inside = kline_of(trades[:2], T0, closed=False, at_us=T0, last_trade_id=13, trade_count=4)
    one.connected(T0 + 1_000)
    one.on_kline(inside)
    for each in trades[1:]:
        one.on_trade(each)
    assert one.live_candles()[0][0].trade_count == 4  # the kline itself, not a wrong fold
    one.on_kline(kline_of(trades, T0, closed=False, at_us=T0 + 3 * SECOND_US))
    assert one.live_candles()[0][0].trade_count == 7
    one.on_trade(trade(4, T0 + 4 * SECOND_US, first=17))
    assert one.live_candles()[0][0].trade_count == 8


def test_duplicates_and_void_trades_count_once_and_never(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    one.on_trade(trade(1, T0 + 1))
    one.on_trade(trade(2, T0 + 2))
    one.on_trade(trade(2, T0 + 2))
    one.on_trade(trade(1, T0 + 1))
    one.on_trade(trade(3, T0 + 3, price="0", quantity="0", first=-1))
    one.on_trade(trade(4, T0 + 4, first=3))
    (shown, _) = one.live_candles()[0]
    assert (shown.trade_count, shown.low) == (3, 10)
    assert (one.duplicates, one.void_trades) == (2, 1)
    assert results.holes == []


def test_a_late_trade_revises_the_candle_it_belongs_to(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    for each in minute_trades(0, 1):
        one.on_trade(each)
    one.on_clock(T0 + MINUTE_US + GRACE + TIMEOUT)
    one.on_trade(trade(7, T0 + MINUTE_US - 1, price="50"))
    assert results.stored()[T0].candle.high == 50
    assert results.stored()[T0].candle.trade_count == 7
    one.on_trade(trade(8, T0 + MINUTE_US + 1))
    assert one.live_candles()[-1][0].trade_count == 1


def test_a_trade_of_long_ago_is_asked_of_rest(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    one.on_trade(trade(1, T0 + 1))
    one.on_clock(T0 + (MINUTES_KEPT + 3) * MINUTE_US)
    results.asked.clear()
    one.on_trade(trade(2, T0 + 2))
    assert results.asked == [(T0, "a trade came too late")]


def test_a_hole_is_told_at_once_and_the_minute_seeded_anew(results: Results) -> None:
    one = aggregator(results)
    trades = minute_trades(0, 1)
    begin(one)
    one.on_trade(trades[0])
    one.on_trade(trades[3])
    assert results.holes == [(2, 3)]
    one.on_kline(kline_of(trades[:4], T0, closed=False, at_us=trades[3].trade_time))
    for each in trades[4:]:
        one.on_trade(each)
    one.on_clock(T0 + MINUTE_US + GRACE + TIMEOUT)
    assert results.stored()[T0].status is Status.UNCONFIRMED
    assert results.stored()[T0].candle.trade_count == 6


@pytest.mark.parametrize(("known", "seen_by"), [(1, "first_trade_id"), (3, "trade_count")])
def test_a_first_trade_that_never_came_is_seen_by_the_klines_first_id(
    results: Results, known: int, seen_by: str
) -> None:
    one = aggregator(results)
    trades = minute_trades(0, 1)
    begin(one)
    for each in trades[1:3]:
        one.on_trade(each)
    one.on_kline(kline_of(trades[:known], T0, closed=False, at_us=trades[3].trade_time))
    for each in trades[3:]:
        one.on_trade(each)
    one.on_kline(kline_of(trades[:5], T0, closed=False, at_us=trades[5].trade_time))
    one.on_clock(T0 + MINUTE_US + GRACE + TIMEOUT)
    assert results.differing == [[seen_by]]
    if known == 3:
        assert results.stored()[T0].candle.trade_count == 6
        assert results.stored()[T0].status is Status.UNCONFIRMED


def test_a_hole_without_a_seed_leaves_the_minute_partial(results: Results) -> None:
    one = aggregator(results)
    trades = minute_trades(0, 1)
    begin(one)
    for each in (*trades[:2], *trades[4:]):
        one.on_trade(each)
    one.on_clock(T0 + MINUTE_US + GRACE + TIMEOUT)
    assert [o.status for o in results.offers] == [Status.PARTIAL]
    assert results.asked == [(T0, "no closed kline")]


def test_after_a_cut_in_which_nothing_was_missed_the_fold_goes_on(results: Results) -> None:
    one = aggregator(results)
    trades = minute_trades(0, 1) + minute_trades(1, 7)
    begin(one)
    for each in trades[:3]:
        one.on_trade(each)
    one.disconnected()
    one.connected(trades[3].trade_time - 1)
    for each in trades[3:]:
        one.on_trade(each)
    one.on_clock(T0 + 2 * MINUTE_US + GRACE + TIMEOUT)
    assert results.holes == []
    assert [o.status for o in results.offers] == [Status.UNCONFIRMED] * 2


def test_after_a_cut_nothing_is_claimed_before_a_trade_or_kline_proves_it(
    results: Results,
) -> None:
    one = aggregator(results)
    begin(one)
    one.on_trade(trade(1, T0 + 1))
    one.disconnected()
    one.connected(T0 + 30 * SECOND_US)
    one.on_clock(T0 + MINUTE_US + GRACE + TIMEOUT)
    assert [o.status for o in results.offers] == [Status.PARTIAL]


def test_minutes_that_closed_during_a_cut_are_all_asked_of_rest(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    one.on_trade(trade(1, T0 + 1))
    back = T0 + 10 * MINUTE_US + 5 * SECOND_US
    one.disconnected()
    one.connected(back)
    one.on_trade(trade(50, back + 1))
    one.on_clock(back + 2)
    assert [at for at, _ in results.asked] == [T0 + n * MINUTE_US for n in range(10)]
    assert results.doubted == 0


def test_it_resumes_after_the_last_minute_of_the_table(results: Results) -> None:
    one = aggregator(results)
    one.resume_after(T0 - 5 * MINUTE_US)
    one.connected(T0 + SECOND_US)
    one.on_clock(T0 + 4 * SECOND_US)
    assert [at for at, _ in results.asked] == [T0 - n * MINUTE_US for n in (4, 3, 2, 1)]


def test_ids_that_skip_by_design_are_no_holes(results: Results) -> None:
    one = aggregator(results, has_contiguous_ids=False, expects_klines=False)
    one.connected(T0 + SECOND_US)
    one.on_trade(trade(1, T0 + 2 * SECOND_US))
    one.on_trade(trade(9, T0 + MINUTE_US + 1))
    one.on_trade(trade(15, T0 + MINUTE_US + 2))
    one.on_clock(T0 + 2 * MINUTE_US + GRACE)
    assert results.holes == []
    assert [o.status for o in results.offers] == [Status.PARTIAL, Status.UNCONFIRMED]


def test_trades_that_come_long_after_their_kline_are_no_difference(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    trades = minute_trades(0, 1)
    one.on_trade(trades[0])
    one.on_kline(kline_of(trades, T0, closed=True, at_us=T0 + MINUTE_US))
    one.on_clock(T0 + MINUTE_US + GRACE + TIMEOUT)
    assert [o.source for o in results.offers] == [Source.KLINE]
    for each in trades[1:]:
        one.on_trade(each)
    assert results.differing == []
    assert {o.source for o in results.offers} == {Source.KLINE}


def test_a_symbol_is_not_doubted_before_it_is_delivered_again(results: Results) -> None:
    """After a cut, another symbol's frame moves the clock first."""
    one = aggregator(results)
    begin(one)
    one.on_trade(trade(1, T0 + 1))
    one.disconnected()
    one.on_clock(T0 + 3 * MINUTE_US)
    assert results.doubted == 0
    assert {at for at, _ in results.asked} >= {T0, T0 + MINUTE_US}


def test_memory_stays_bounded_over_many_minutes(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    for minute in range(500):
        one.on_trade(trade(minute + 1, T0 + minute * MINUTE_US + 1))
        one.on_clock(T0 + (minute + 1) * MINUTE_US)
    assert len(one._minutes) <= MINUTES_KEPT + 3


@dataclass
class Event:
    at_us: int
    order: int
    frame: AggTrade | Kline


def _stream(trades: list[AggTrade], minutes: int, ahead_us: int) -> Iterator[Event]:
    for order, each in enumerate(trades):
        yield Event(each.trade_time + 20_000, order, each)
    for minute in range(minutes):
        open_us = T0 + minute * MINUTE_US
        for second in range(2, 60, 2):
            at = open_us + second * SECOND_US
            known = [t for t in trades if t.trade_time <= at]
            kline = kline_of(known, open_us, closed=False, at_us=at)
            yield Event(at + 20_000 - ahead_us, 10_000 + second, kline)
        closed = kline_of(trades, open_us, closed=True, at_us=open_us + MINUTE_US + 10_000)
        yield Event(open_us + MINUTE_US + 20_000 - ahead_us, 20_000, closed)


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(0, 12), min_size=4, max_size=4),
    cuts=st.lists(st.tuples(st.integers(0, 230), st.integers(0, 90)), max_size=3),
    lost=st.sets(st.integers(2, 45), max_size=4),
    lost_klines=st.sets(st.integers(0, 3), max_size=2),
    repeats=st.booleans(),
    ahead_us=st.sampled_from([0, 15_000, 500_000]),
)
def test_whatever_is_lost_no_minute_is_wrong_or_forgotten(
    counts: list[int],
    cuts: list[tuple[int, int]],
    lost: set[int],
    lost_klines: set[int],
    repeats: bool,
    ahead_us: int,
) -> None:
    """Every minute is either equal to the exchange's, or has been asked of REST."""
    trades: list[AggTrade] = []
    for minute, count in enumerate(counts):
        trades += minute_trades(minute, len(trades) + 1, count)
    results = Results()
    one = aggregator(results)
    events = sorted(_stream(trades, len(counts), ahead_us), key=lambda e: (e.at_us, e.order))
    silences = [
        (T0 + start * SECOND_US, T0 + (start + length) * SECOND_US) for start, length in cuts
    ]
    begin(one)
    was_cut = False
    for event in events:
        if any(start <= event.at_us < end for start, end in silences):
            one.disconnected()
            was_cut = True
            continue
        if was_cut:
            one.connected(event.at_us)
            was_cut = False
        if isinstance(event.frame, AggTrade):
            if event.frame.id in lost:
                continue
            one.on_trade(event.frame)
            if repeats:
                one.on_trade(event.frame)
        else:
            minute = (event.frame.body.open_time - T0) // MINUTE_US
            if event.frame.body.is_closed and minute in lost_klines:
                continue
            one.on_kline(event.frame)
        one.on_clock(event.at_us)
    end_us = T0 + len(counts) * MINUTE_US
    one.on_clock(end_us + GRACE + TIMEOUT)
    stored, asked = results.stored(), {at for at, _ in results.asked}
    for minute in range(len(counts)):
        open_us = T0 + minute * MINUTE_US
        expected = kline_of(trades, open_us, closed=True, at_us=0).candle("BTCUSDT")
        offer = stored.get(open_us)
        if offer is None or offer.status is Status.PARTIAL:
            assert open_us in asked
        else:
            _assert_equal(offer.candle, expected)
            assert offer.status is Status.VERIFIED or open_us in asked


def _assert_equal(candle: Candle, expected: Candle) -> None:
    if expected.trade_count:
        assert candle == expected
    else:
        assert candle.trade_count == 0


# --- ids that do not go on


def test_a_void_trade_does_not_take_the_place_of_the_true_one(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    one.on_trade(trade(1, T0 + 1))
    one.on_trade(trade(2, T0 + 2, price="0", quantity="0", first=-1))
    one.on_trade(trade(2, T0 + 2, price="8"))
    one.on_trade(trade(3, T0 + 3))
    (shown, _) = one.live_candles()[0]
    assert (shown.trade_count, shown.low) == (3, 8)
    assert (one.void_trades, one.duplicates, results.holes) == (1, 0, [])


def test_a_void_trade_that_hides_a_true_one_leaves_a_hole(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    one.on_trade(trade(1, T0 + 1))
    one.on_trade(trade(2, T0 + 2, price="0", quantity="0", first=-1))
    one.on_trade(trade(3, T0 + 3, first=3))  # the fill 2 is missing
    assert results.holes == [(2, 2)]


def test_a_ticker_used_again_is_folded_from_its_first_whole_minute(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    old = minute_trades(0, 9_001)
    for each in old:
        one.on_trade(each)
    one.on_kline(kline_of(old, T0, closed=True, at_us=T0 + MINUTE_US + 1))
    new = [trade(n + 1, T0 + 5 * MINUTE_US + n * SECOND_US, price="3") for n in range(4)]
    new += minute_trades(6, 5)
    for each in new:
        one.on_trade(each)
    assert results.restarts == [(9_007, 1)]
    assert (one.duplicates, results.holes) == (0, [])
    fifth, sixth = T0 + 5 * MINUTE_US, T0 + 6 * MINUTE_US
    one.on_kline(kline_of(new, fifth, closed=True, at_us=sixth + 1))
    one.on_kline(kline_of(new, sixth, closed=True, at_us=sixth + MINUTE_US + 1))
    stored = results.stored()
    assert {stored[m].status for m in (T0, fifth, sixth)} == {Status.VERIFIED}
    assert stored[sixth].candle.trade_count == 6
    assert results.differing == []


# --- streams that do not deliver


def pass_minutes(one: SymbolAggregator, first: int, count: int) -> None:
    """The exchange's clock goes on, told by another symbol."""
    for minute in range(first, first + count):
        one.on_clock(T0 + (minute + 1) * MINUTE_US + GRACE + TIMEOUT)


def test_a_silent_symbol_is_told_once_and_asked_about_less_and_less_often(
    results: Results,
) -> None:
    one = aggregator(results)
    begin(one)
    one.on_trade(trade(1, T0 + 1))
    one.on_kline(kline_of([trade(1, T0 + 1)], T0, closed=True, at_us=T0 + MINUTE_US))
    pass_minutes(one, 1, 24 * 60)
    assert results.silences == [(T0 + MINUTE_US, None)]
    assert results.doubted == 4 + 24 * 60 // 16  # 1, 2, 4, 8, then each 16th
    asked = [minute for minute, _ in results.asked]
    assert asked == [T0 + n * MINUTE_US for n in range(1, 24 * 60 + 1)]
    assert [offer.candle.open_time_us for offer in results.offers] == [T0]  # no flat rows


def test_all_minutes_of_a_silence_are_asked_of_rest_when_it_ends(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    pass_minutes(one, 0, 11)
    assert len(results.asked) == 8
    back = T0 + 11 * MINUTE_US + SECOND_US
    one.on_trade(trade(1, back))
    assert [minute for minute, _ in results.asked] == [T0 + n * MINUTE_US for n in range(11)]
    assert results.silences == [(T0, None), (T0, back)]


def test_a_cut_ends_a_silence_and_forgets_no_minute_of_it(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    pass_minutes(one, 0, 11)
    one.disconnected()
    one.disconnected()
    assert [minute for minute, _ in results.asked] == [T0 + n * MINUTE_US for n in range(11)]
    assert results.silences == [(T0, None)]


def test_one_lost_closed_kline_is_no_reason_to_subscribe_anew(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    trades = minute_trades(0, 1)
    for each in trades:
        one.on_trade(each)
    one.on_kline(kline_of(trades[:3], T0, closed=False, at_us=T0 + 30 * SECOND_US))
    pass_minutes(one, 0, 1)
    assert results.asked == [(T0, "no closed kline")]
    assert results.doubted == 0


def test_trades_that_do_not_come_although_klines_tell_of_them_are_subscribed_anew(
    results: Results,
) -> None:
    one = aggregator(results)
    begin(one)
    for minute in range(6):
        open_us = T0 + minute * MINUTE_US
        kline = kline_of(
            minute_trades(minute, 1 + 6 * minute), open_us, closed=True, at_us=open_us + MINUTE_US
        )
        one.on_kline(kline)
        pass_minutes(one, minute, 1)
    assert set(results.reasons) == {"klines tell of trades that did not come"}
    assert results.doubted == 3  # the 1st, 2nd and 4th of five minutes that are two behind
    assert all(offer.status is Status.VERIFIED for offer in results.offers)
    assert len(results.offers) == 6
