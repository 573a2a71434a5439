"""A simulated exchange with months of derivative series, and its oracle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from include.domain.series.kinds import Series
from include.domain.timeframes import MINUTE_US, from_us, to_us
from simulator.config import SimulatorConfig
from simulator.market.derivatives.price_klines import PriceName
from simulator.market.intervals import parse_interval
from simulator.server import ExchangeThread

STARTED = datetime(2026, 9, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 4, 12, tzinfo=UTC)
STEP_US = 5 * MINUTE_US

Oracle = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def exchange() -> Iterator[ExchangeThread]:
    """Two quiet contracts; the funding interval of XLMUSDT changes."""
    config = SimulatorConfig(
        um_symbols=("XLMUSDT", "KEEPUSDT"),
        start=STARTED,
        clock_start=NOW,
        speed=0,
        daily_dump_delay_s=8 * 3_600,
    )
    with ExchangeThread(config) as running:
        yield running


def _exact(value: int) -> Decimal:
    return Decimal(value).scaleb(-8)


@pytest.fixture
def oracle(exchange: ExchangeThread) -> Oracle:
    """The exchange's own rows of a series in [start, end): time, then the values that are exact."""

    def rows(symbol: str, series: Series, start: datetime, end: datetime) -> list[tuple[Any, ...]]:
        market = exchange.markets["um"]
        name = symbol.removesuffix(".P")
        own, unit = market.derivatives(name), market.instrument(name)
        start_us, end_us = to_us(start), to_us(end)
        if series is Series.FUNDING:
            settled = own.settlements(start_us, end_us)
            marks = own.mark_prices(np.array([one.funding_us for one in settled], dtype=np.int64))
            return [
                (from_us(one.funding_us), _exact(one.rate), from_us(one.time_us), _exact(mark))
                for one, mark in zip(settled, marks, strict=True)
            ]
        if series is Series.OPEN_INTEREST:
            times = np.arange(start_us, end_us, STEP_US, dtype=np.int64)
            return [
                (from_us(time_us), Decimal(unit.format_quantity(amount)))
                for time_us, amount in zip(
                    times.tolist(), own.served_open_interest(times), strict=True
                )
            ]
        names: dict[Series, PriceName] = {
            Series.MARK: "mark", Series.INDEX: "index", Series.PREMIUM: "premium",
        }  # fmt: skip
        view_us = exchange.clock.now_us()
        klines = own.klines(
            names[series], parse_interval("1m"), start_us, end_us - 1, view_us=view_us
        )
        return [
            (
                from_us(one.open_time_us),
                *map(_exact, (one.open, one.high, one.low, one.close)),
            )
            for one in klines
        ]

    return rows
