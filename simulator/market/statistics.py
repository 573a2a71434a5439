"""Statistics of a contract that follow from its trades: taker volumes and last prices."""

from simulator.clock import MINUTE_US
from simulator.market.derivatives.open_interest import TakerVolumes
from simulator.market.klines import KlineColumns
from simulator.market.market import SimulatedMarket
from simulator.market.noise import IntArray


def taker_volumes(
    market: SimulatedMarket, symbol: str, times_us: IntArray, step_us: int
) -> list[TakerVolumes]:
    """Return the volumes of the period of `step_us` that ends at each time (exclusive).

    Args:
        times_us: ascending; full minutes.
    """
    klines = _minutes(market, symbol, int(times_us[0]) - step_us, int(times_us[-1]))
    found = []
    for end_us in times_us.tolist():
        part = _between(klines, end_us - step_us, end_us)
        volume, quote = _sum(part.volume), _sum(part.quote_volume)
        buy, quote_buy = _sum(part.taker_buy_volume), _sum(part.taker_buy_quote_volume)
        found.append(TakerVolumes(buy, volume - buy, quote_buy, quote - quote_buy))
    return found


def closes(market: SimulatedMarket, symbol: str, times_us: IntArray) -> list[int]:
    """Return the price of the last trade before each time (ascending full minutes)."""
    klines = _minutes(market, symbol, int(times_us[0]) - MINUTE_US, int(times_us[-1]))
    first_us = int(klines.open_time_us[0])
    rows = (times_us - MINUTE_US - first_us) // MINUTE_US
    prices: list[int] = klines.close[rows].tolist()
    return prices


def _minutes(market: SimulatedMarket, symbol: str, from_us: int, until_us: int) -> KlineColumns:
    history = market.history(symbol)
    first = max(history.start_minute, from_us // MINUTE_US)
    return history.kline_columns(first, until_us // MINUTE_US)


def _between(klines: KlineColumns, from_us: int, until_us: int) -> KlineColumns:
    first_us = int(klines.open_time_us[0])
    return klines.between(
        max(0, (from_us - first_us) // MINUTE_US), max(0, (until_us - first_us) // MINUTE_US)
    )


def _sum(values: IntArray) -> int:
    return sum(values.tolist())
