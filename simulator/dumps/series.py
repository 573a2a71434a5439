"""Rows of the dump files of derivative series: price klines, funding rates, metrics.

The oddities of `metrics` are the recorded ones: files before June 2021 have each row twice, half of
the files are not sorted, and some columns are empty in old periods.
"""

from datetime import UTC, datetime

from simulator.clock import to_us
from simulator.market.derivatives.open_interest import (
    SHARE_ONE,
    STATISTICS_STEP_US,
    RatioName,
    statistics_times,
)
from simulator.market.derivatives.price_klines import PriceName
from simulator.market.derivatives.series import DerivativeSeries
from simulator.market.intervals import parse_interval
from simulator.market.market import SimulatedMarket
from simulator.market.noise import IntArray, derive_key, hash_counter
from simulator.market.statistics import taker_volumes
from simulator.wire.derivatives import funding_rate_line, price_kline_row
from simulator.wire.open_interest import Metrics, metrics_line

_PRICES: dict[str, PriceName] = {
    "indexPriceKlines": "index",
    "markPriceKlines": "mark",
    "premiumIndexKlines": "premium",
}


def _us(year: int, month: int, day: int) -> int:
    return to_us(datetime(year, month, day, tzinfo=UTC))


_DOUBLED_UNTIL_US = _us(2021, 6, 1)
_WITHOUT_TOP_TRADERS_US = (_us(2022, 1, 1), _us(2022, 12, 15))
_WITHOUT_TAKERS_US = (_us(2021, 12, 1), _us(2022, 5, 15))


def series_lines(
    market: SimulatedMarket,
    kind: str,
    symbol: str,
    interval: str | None,
    start_us: int,
    end_us: int,
) -> list[str]:
    """Return the lines of a file, in its order."""
    series = market.derivatives(symbol)
    if kind in _PRICES and interval is not None:
        rows = series.klines(
            _PRICES[kind], parse_interval(interval), start_us, end_us - 1, view_us=end_us - 1
        )
        # a kline that began in the period before is in that period's file
        return [
            f"{','.join(map(str, price_kline_row(row)))}\n"
            for row in rows
            if row.open_time_us >= start_us
        ]
    if kind == "fundingRate":
        return [funding_rate_line(one) for one in series.settlements(start_us, end_us)]
    return _metrics(market, series, start_us, end_us)


def _metrics(
    market: SimulatedMarket, series: DerivativeSeries, start_us: int, end_us: int
) -> list[str]:
    history = series.history
    instrument = history.instrument
    times = statistics_times(max(start_us, history.start_us + 1), end_us - 1)
    times = times[history.calendar.listed_mask(times)]
    if len(times) == 0:
        return []
    lines = [metrics_line(instrument, row) for row in _metrics_rows(market, series, times)]
    if start_us < _DOUBLED_UNTIL_US:
        lines = [line for line in lines for _ in range(2)]
    key = derive_key(0, instrument.market, instrument.symbol, "metrics order")
    if hash_counter(key, start_us) & 1:
        order = sorted(range(len(lines)), key=lambda row: hash_counter(key, start_us + row + 1))
        lines = [lines[row] for row in order]
    return lines


def _metrics_rows(
    market: SimulatedMarket, series: DerivativeSeries, times: IntArray
) -> list[Metrics]:
    symbol = series.history.instrument.symbol
    names: tuple[RatioName, ...] = ("top accounts", "top positions", "all accounts")
    shares = [series.long_shares(name, times) for name in names]
    takers = taker_volumes(market, symbol, times, STATISTICS_STEP_US)
    amounts, marks = series.served_open_interest(times), series.mark_prices(times)
    rows = []
    for number, time_us in enumerate(times.tolist()):
        top_accounts, top_positions, everyone = (
            (share[number], SHARE_ONE - share[number]) for share in shares
        )
        has_top = not _within(time_us, _WITHOUT_TOP_TRADERS_US)
        taker = (takers[number].buy, takers[number].sell)
        rows.append(
            Metrics(
                time_us,
                amounts[number],
                marks[number],
                top_accounts if has_top else None,
                top_positions if has_top else None,
                everyone,
                None if _within(time_us, _WITHOUT_TAKERS_US) else taker,
            )
        )
    return rows


def _within(time_us: int, period_us: tuple[int, int]) -> bool:
    return period_us[0] <= time_us < period_us[1]
