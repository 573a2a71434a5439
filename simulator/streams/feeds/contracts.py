"""Streams of the futures about contracts: continuous klines, and changes of contracts."""

import functools
import re
from collections.abc import Iterator

from simulator.market.continuous import CONTINUOUS_TYPES, contract_periods
from simulator.market.intervals import UM_INTERVALS, parse_interval
from simulator.market.market import SimulatedMarket
from simulator.market.quarters import ContractType
from simulator.streams.feeds.trades import DueFrame, kline_feed
from simulator.streams.hub import Render
from simulator.wire.contracts import contract_info_payload
from simulator.wire.payloads import continuous_kline_payload

_NAME = re.compile(r"(?P<pair>.+)_(?P<kind>perpetual|current_quarter|next_quarter)\Z")


def open_continuous_klines(
    market: SimulatedMarket, name: str, kind: str, from_us: int, *, seed: int
) -> Iterator[DueFrame] | None:
    """Return the feed of `<pair>_<type>@continuousKline_<interval>`; None if it is unknown.

    Args:
        name: pair and type, e.g. `btcusd_next_quarter`.
        kind: the stream's name after the `@`.
    """
    found = _NAME.match(name)
    interval = kind.removeprefix("continuousKline_")
    if found is None or interval not in UM_INTERVALS or name != name.lower():
        return None
    wanted = next(one for one in CONTINUOUS_TYPES if one.lower() == found["kind"])
    pair = found["pair"].upper()
    if not contract_periods(market, pair, wanted):
        return None
    return _continuous_klines(market, pair, wanted, interval, from_us, seed)


def _continuous_klines(
    market: SimulatedMarket, pair: str, kind: ContractType, interval: str, from_us: int, seed: int
) -> Iterator[DueFrame]:
    for period in contract_periods(market, pair, kind):
        if period.until_us is not None and period.until_us <= from_us:
            continue
        yield from kline_feed(
            market,
            market.history(period.symbol),
            parse_interval(interval),
            interval,
            max(from_us, period.from_us),
            seed=seed,
            period_us=(period.from_us, period.until_us),
            payload=functools.partial(continuous_kline_payload, kind=kind),
        )


def contract_info_feed(market: SimulatedMarket, from_us: int) -> Iterator[DueFrame]:
    """Yield `!contractInfo` frames: changes of the status and of the type of contracts."""
    changes = sorted(
        (at_us, instrument.symbol)
        for instrument in market.instruments
        for at_us in market.contract_changes(instrument.symbol)
        if at_us >= from_us
    )
    for at_us, symbol in changes:
        yield at_us, _render(market, symbol, at_us)


def _render(market: SimulatedMarket, symbol: str, at_us: int) -> Render:
    return lambda _unit_us: [contract_info_payload(market, symbol, at_us=at_us)]
