"""Continuous contracts: klines of a pair's current or next quarterly contract over the years."""

from collections.abc import Iterator
from typing import NamedTuple

from simulator.clock import MINUTE_US
from simulator.market.intervals import Interval
from simulator.market.klines import Kline, join_klines, roll_up
from simulator.market.market import SimulatedMarket, kline_window
from simulator.market.quarters import ContractType, delivery_before

CONTINUOUS_TYPES: tuple[ContractType, ...] = ("PERPETUAL", "CURRENT_QUARTER", "NEXT_QUARTER")


class ContractPeriod(NamedTuple):
    """When a contract is its pair's contract of a type; `until_us` is exclusive, None for ever."""

    symbol: str
    from_us: int
    until_us: int | None


def contract_periods(
    market: SimulatedMarket, pair: str, kind: ContractType
) -> list[ContractPeriod]:
    """Return the contracts of a pair that are of a type one after another; none if there are none.

    Args:
        kind: one of `CONTINUOUS_TYPES`.
    """
    found = [
        period
        for instrument in market.instruments
        if instrument.pair == pair
        if (period := _period(market, instrument.symbol, kind)) is not None
    ]
    return sorted(found, key=lambda period: period.from_us)


def _period(market: SimulatedMarket, symbol: str, kind: ContractType) -> ContractPeriod | None:
    history = market.history(symbol)
    planned_us, delivery_us = history.instrument.delivery_us, history.delivery_us
    if planned_us is None or delivery_us is None:
        if kind != "PERPETUAL":
            return None
        return ContractPeriod(symbol, history.start_us, None)
    if kind == "PERPETUAL":
        return None
    current_us = delivery_before(planned_us)
    from_us, until_us = current_us, delivery_us
    if kind == "NEXT_QUARTER":
        from_us, until_us = history.start_us, min(current_us, delivery_us)
    from_us = max(from_us, history.start_us)
    return ContractPeriod(symbol, from_us, until_us) if from_us < until_us else None


def continuous_klines(
    market: SimulatedMarket,
    periods: list[ContractPeriod],
    interval: Interval,
    start_us: int | None = None,
    end_us: int | None = None,
    *,
    view_us: int,
    limit: int,
    is_latest: bool = False,
) -> list[Kline]:
    """Return a single series of the klines of periods, see `SimulatedMarket.klines`."""
    if not periods:
        return []
    window = kline_window(
        interval,
        first_us=periods[0].from_us,
        view_us=view_us,
        start_us=start_us,
        end_us=end_us,
        limit=limit,
        is_latest=is_latest,
    )
    if window is None:
        return []
    stop_us = min(interval.next_open(window[1]), view_us + 1)
    parts = [
        market.history(symbol).kline_columns(first, stop, view_us=view_us)
        for symbol, first, stop in _minutes(periods, window[0], stop_us)
    ]
    return roll_up(join_klines(parts), interval) if parts else []


def _minutes(
    periods: list[ContractPeriod], from_us: int, until_us: int
) -> Iterator[tuple[str, int, int]]:
    """Yield the symbol, the first and the last minute (exclusive) of each period in a range."""
    for period in periods:
        first_us = max(from_us, period.from_us)
        stop_us = until_us if period.until_us is None else min(until_us, period.until_us)
        if first_us < stop_us:
            yield period.symbol, first_us // MINUTE_US, -(-stop_us // MINUTE_US)
