"""Request weights from the exchange's documentation. Refused requests cost the same."""

from collections.abc import Callable, Mapping

from simulator.market.instruments import MarketName
from simulator.rest.parameters import INTEGER

Weigh = Callable[[Mapping[str, str]], int]


def fixed(weight: int) -> Weigh:
    """Return the same weight for every request."""
    return lambda _query: weight


def by_limit(default: int, *steps: tuple[int, int], above: int) -> Weigh:
    """Weigh by the parameter `limit`: the weight of the first step that includes it.

    Args:
        default: limit if none was sent, or if it is not a number.
        steps: (maximum limit, weight), ascending.
        above: weight beyond the last step.
    """

    def weigh(query: Mapping[str, str]) -> int:
        text = query.get("limit", "")
        limit = int(text) if INTEGER.match(text) else default
        return next((weight for bound, weight in steps if limit <= bound), above)

    return weigh


def by_symbols(one: int, everything: int) -> Weigh:
    """Return one weight for requests with `symbol`, another for those without."""
    return lambda query: one if "symbol" in query else everything


def _windows(query: Mapping[str, str]) -> int:
    """Weigh `ticker`: 4 per symbol, at most 200."""
    return min(200, 4 * (query.get("symbols", "").count(",") + 1))


def _spot_statistics(query: Mapping[str, str]) -> int:
    """Weigh `ticker/24hr` on spot by the number of symbols."""
    if "symbol" in query:
        return 2
    if "symbols" not in query:
        return 80
    named = query["symbols"].count(",") + 1
    return 2 if named <= 20 else 40 if named <= 100 else 80


WEIGHTS: dict[MarketName, dict[str, Weigh]] = {
    "spot": {
        "ping": fixed(1),
        "time": fixed(1),
        "exchangeInfo": fixed(20),
        "depth": by_limit(100, (100, 5), (500, 25), (1_000, 50), above=250),
        "trades": fixed(25),
        "historicalTrades": fixed(25),
        "aggTrades": fixed(4),
        "klines": fixed(2),
        "uiKlines": fixed(2),
        "avgPrice": fixed(2),
        "ticker": _windows,
        "ticker/24hr": _spot_statistics,
        "ticker/price": by_symbols(2, 4),
        "ticker/bookTicker": by_symbols(2, 4),
    },
    "um": {
        "ping": fixed(1),
        "time": fixed(1),
        "exchangeInfo": fixed(1),
        "depth": by_limit(500, (50, 2), (100, 5), (500, 10), above=20),
        "trades": fixed(5),
        "historicalTrades": fixed(20),
        "aggTrades": fixed(20),
        "klines": by_limit(500, (100, 1), (500, 2), (1_000, 5), above=10),
        "ticker/24hr": by_symbols(1, 40),
        "ticker/price": by_symbols(1, 2),
        "ticker/bookTicker": by_symbols(2, 5),
        "premiumIndex": by_symbols(1, 10),
    },
}
