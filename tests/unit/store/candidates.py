"""Candidates for tests of the merge: few values, so that they tie, repeat and contradict often."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from hypothesis import strategies as st

from include.domain.candles import EXCHANGE_SOURCES, Candle, CandleCandidate, Source, Status
from include.domain.timeframes import MINUTE_US

NOVEMBER_END_US = 1_764_547_140_000_000
"""2025-11-30 23:59 UTC, the last minute of a partition."""

EVIDENCE_US = (1_764_554_000_000_000, 1_764_554_000_000_001, 1_764_564_000_000_000)


def candle(
    symbol: str = "BTCUSDT",
    open_time_us: int = NOVEMBER_END_US,
    *,
    price: str = "10",
    trade_count: int = 3,
    volume: str = "2",
    quote_volume: str = "20",
    ids: tuple[int | None, int | None] = (None, None),
) -> Candle:
    """A valid candle around a price; without trades its volumes are zero."""
    middle = Decimal(price)
    silent = trade_count == 0
    return Candle(
        symbol,
        open_time_us,
        open=middle,
        high=middle if silent else middle + 1,
        low=middle if silent else middle - 1,
        close=middle,
        volume=Decimal(0) if silent else Decimal(volume),
        quote_volume=Decimal(0) if silent else Decimal(quote_volume),
        trade_count=trade_count,
        taker_buy_volume=Decimal(0),
        taker_buy_quote_volume=Decimal(0),
        first_trade_id=ids[0],
        last_trade_id=ids[1],
    )


def candidate(
    source: Source = Source.KLINE,
    of: Candle | None = None,
    *,
    status: Status | None = None,
    evidence_at_us: int | None = None,
) -> CandleCandidate:
    """A candidate whose status and evidence fit its source unless they are given."""
    is_exchange = source in EXCHANGE_SOURCES
    if status is None:
        status = Status.VERIFIED if is_exchange else Status.UNCONFIRMED
    if evidence_at_us is None and is_exchange:
        evidence_at_us = EVIDENCE_US[0]
    return CandleCandidate(of or candle(), status, source, evidence_at_us)


@st.composite
def candidates(draw: st.DrawFn) -> CandleCandidate:
    """Any candidate of one minute."""
    source = draw(st.sampled_from(list(Source)))
    last = draw(st.sampled_from([None, 0, 5, 6]))
    first = None if last is None else draw(st.sampled_from([None, 0, last]))
    of = candle(
        # 10 and 10.00 are the same price
        price=draw(st.sampled_from(["10", "10.00", "11"])),
        trade_count=draw(st.sampled_from([0, 1, 2])),
        volume=draw(st.sampled_from(["1", "2.50"])),
        quote_volume=draw(st.sampled_from(["10", "10.00000001"])),
        ids=(first, last),
    )
    if source in EXCHANGE_SOURCES:
        return candidate(source, of, evidence_at_us=draw(st.sampled_from(EVIDENCE_US)))
    status = draw(st.sampled_from([Status.UNCONFIRMED, Status.PARTIAL]))
    return candidate(source, of, status=status)


def moved(of: CandleCandidate, symbol: str, minute: int) -> CandleCandidate:
    """The same candidate for another symbol and minute (counted from ``NOVEMBER_END_US``)."""
    there = replace(of.candle, symbol=symbol, open_time_us=NOVEMBER_END_US + minute * MINUTE_US)
    return replace(of, candle=there)
