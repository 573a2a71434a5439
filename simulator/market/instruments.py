"""The listed instruments: units, rounding, typical price and activity.

Prices and quantities are integers in units of 10^-price_decimals and 10^-quantity_decimals; quote
amounts are integers in units of 10^-quote_decimals. As on the exchange, spot prints eight decimals
for any unit and USD-M prints the unit's own.
"""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from simulator.market.noise import derive_key, hash_counter

MarketName = Literal["spot", "um"]

SPOT_DECIMALS = 8


@functools.lru_cache(maxsize=256)
def decimal_formatter(decimals: int, shown: int) -> Callable[[int], str]:
    """Return a printer of integers of 10^-`decimals` with `shown` (>= decimals) digits."""
    if shown < decimals:
        raise ValueError(f"{decimals} decimals cannot be shown with {shown} digits")
    padding = "0" * (shown - decimals)
    if decimals == 0:
        suffix = f".{padding}" if padding else ""
        return lambda value: f"{value}{suffix}"
    scale = 10**decimals

    def render(value: int) -> str:
        whole, fraction = divmod(value, scale)
        return f"{whole}.{fraction:0{decimals}d}{padding}"

    return render


@dataclass(frozen=True, slots=True, kw_only=True)
class Instrument:
    """One symbol of one market.

    Attributes:
        tick, step: smallest change of price and quantity, in price and quantity units.
        typical_price: centre of the price path, in ticks.
        largest_fill: maximum quantity of one fill, in steps.
        orders_per_day: mean number of taker orders (aggTrades) per day.
        trades_at_bounds: the first and last orders of a minute are in its first and last instant.
    """

    symbol: str
    market: MarketName
    base_asset: str
    quote_asset: str
    price_decimals: int
    quantity_decimals: int
    typical_price: int
    largest_fill: int
    orders_per_day: int
    tick: int = 1
    step: int = 1
    trades_at_bounds: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.typical_price < 1 << 30:
            raise ValueError(f"{self.symbol}: typical_price must be in 1..2^30, in ticks")
        if not 0 < self.largest_fill < 1 << 31:
            raise ValueError(f"{self.symbol}: largest_fill must be in 1..2^31, in steps")
        if not 0 <= self.orders_per_day <= 20_000_000:
            raise ValueError(f"{self.symbol}: orders_per_day must be in 0..20,000,000")
        # Sums over a minute are int64. The price stays below twice the typical one; the busiest
        # minute has fewer than four times the mean number of orders, with half as many further
        # fills.
        fills = 6 * self.orders_per_day // 1_440 + 8
        greatest_fill = 2 * self.typical_price * self.tick * self.largest_fill * self.step
        if greatest_fill * fills >= 1 << 63:
            raise ValueError(f"{self.symbol}: a minute's quote amount could exceed 63 bits")

    @property
    def product_decimals(self) -> int:
        """Decimals of price × quantity before rounding."""
        return self.price_decimals + self.quantity_decimals

    @property
    def quote_decimals(self) -> int:
        """Decimals of quote amounts: at most 8 on spot, as on the exchange."""
        if self.market == "spot":
            return min(SPOT_DECIMALS, self.product_decimals)
        return self.product_decimals

    @property
    def rounds_quote(self) -> bool:
        """Whether the exchange cuts digits off the quote amount of each fill: tick × step is too
        fine."""
        return self.quote_decimals < self.product_decimals

    @property
    def quote_divisor(self) -> int:
        """Price units × quantity units per quote unit; 1 unless `rounds_quote`."""
        return int(10 ** (self.product_decimals - self.quote_decimals))

    def _formatter(self, decimals: int) -> Callable[[int], str]:
        return decimal_formatter(decimals, SPOT_DECIMALS if self.market == "spot" else decimals)

    @property
    def format_price(self) -> Callable[[int], str]:
        return self._formatter(self.price_decimals)

    @property
    def format_quantity(self) -> Callable[[int], str]:
        return self._formatter(self.quantity_decimals)

    @property
    def format_quote(self) -> Callable[[int], str]:
        return self._formatter(self.quote_decimals)


def _spot(symbol: str, quote_asset: str, **values: Any) -> Instrument:
    return Instrument(
        symbol=symbol,
        market="spot",
        base_asset=symbol.removesuffix(quote_asset),
        quote_asset=quote_asset,
        **values,
    )


def _um(symbol: str, **values: Any) -> Instrument:
    return Instrument(
        symbol=symbol,
        market="um",
        base_asset=symbol.removesuffix("USDT"),
        quote_asset="USDT",
        **values,
    )


_DEFAULTS = (
    _spot("BTCUSDT", "USDT", price_decimals=2, quantity_decimals=5, typical_price=6_180_000,
          largest_fill=80_000, orders_per_day=144_000),
    _spot("ETHUSDT", "USDT", price_decimals=2, quantity_decimals=4, typical_price=268_000,
          largest_fill=120_000, orders_per_day=100_000),
    # tick 1e-5 × step 1e-4: products have nine decimals, the exchange keeps eight.
    _spot("ETHBTC", "BTC", price_decimals=5, quantity_decimals=4, typical_price=4_337,
          largest_fill=60_000, orders_per_day=9_000),
    _spot("PEPEUSDT", "USDT", price_decimals=8, quantity_decimals=0, typical_price=812,
          largest_fill=2_000_000_000, orders_per_day=40_000),
    _spot("SHIBUSDT", "USDT", price_decimals=8, quantity_decimals=0, typical_price=1_391,
          largest_fill=400_000_000, orders_per_day=12_000),
    _spot("COSUSDT", "USDT", price_decimals=6, quantity_decimals=1, typical_price=6_120,
          largest_fill=300_000, orders_per_day=400),
    _spot("BIFIUSDT", "USDT", price_decimals=1, quantity_decimals=3, typical_price=2_512,
          largest_fill=9_000, orders_per_day=6),
    _um("BTCUSDT", price_decimals=2, tick=10, quantity_decimals=3, typical_price=618_000,
        largest_fill=6_000, orders_per_day=170_000),
    _um("ETHUSDT", price_decimals=2, quantity_decimals=3, typical_price=268_000,
        largest_fill=90_000, orders_per_day=120_000),
    _um("1000PEPEUSDT", price_decimals=7, quantity_decimals=0, typical_price=81_200,
        largest_fill=2_000_000, orders_per_day=30_000),
    _um("KEEPUSDT", price_decimals=4, quantity_decimals=0, typical_price=2_450,
        largest_fill=40_000, orders_per_day=700),
)  # fmt: skip

DEFAULT_SPOT = tuple(item.symbol for item in _DEFAULTS if item.market == "spot")
DEFAULT_UM = tuple(item.symbol for item in _DEFAULTS if item.market == "um")
_KNOWN = {(item.market, item.symbol): item for item in _DEFAULTS}
_QUOTES = ("USDT", "USDC", "FDUSD", "BTC", "ETH", "BNB", "EUR")


def invented(market: MarketName, symbol: str, *, seed: int) -> Instrument:
    """Return an instrument for any symbol, drawn from seed and name."""
    quote = next((asset for asset in _QUOTES if symbol.endswith(asset) and symbol != asset), None)
    if quote is None:
        raise ValueError(f"symbol {symbol!r} does not end with a quote asset: {', '.join(_QUOTES)}")
    drawn = hash_counter(derive_key(seed, market, symbol, "listing"), 0)
    price_decimals = 2 + (drawn & 0x3)
    quantity_decimals = (drawn >> 8) % 4 if price_decimals < 5 else (drawn >> 8) % 3
    return Instrument(
        symbol=symbol,
        market=market,
        base_asset=symbol.removesuffix(quote),
        quote_asset=quote,
        price_decimals=price_decimals,
        quantity_decimals=quantity_decimals,
        typical_price=1_000 + (drawn >> 16) % 400_000,
        largest_fill=500 + (drawn >> 36) % 200_000,
        # log-uniform: from a few orders a day to one per second
        orders_per_day=(8 + (drawn >> 54) % 8) << ((drawn >> 57) % 13),
    )


def select_instruments(
    market: MarketName, symbols: Iterable[str], *, generated: int = 0, seed: int
) -> tuple[Instrument, ...]:
    """Return the named instruments, then the generated ones (`SIM0001USDT` …)."""
    names = [*symbols, *(f"SIM{number:04d}USDT" for number in range(1, generated + 1))]
    twice = {name for name in names if names.count(name) > 1} if len(names) < 100 else set()
    if twice or len(set(names)) != len(names):
        raise ValueError(f"symbols of {market} are listed twice: {sorted(twice)}")
    return tuple(_KNOWN.get((market, name)) or invented(market, name, seed=seed) for name in names)
