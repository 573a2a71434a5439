"""The listed instruments: units, rounding, typical price and activity.

Prices and quantities are integers in units of 10^-price_decimals and 10^-quantity_decimals; quote
amounts are integers in units of 10^-quote_decimals. As on the exchange, spot prints eight decimals
for any unit and the futures print the unit's own.

Quantities of COIN-M are whole contracts, and its quote amounts are in the base asset: contracts ×
contract size / price. The exchange sums exact quotients and rounds only what it prints, to eight
decimals (recorded: sums of rounded fills differ). Here each fill has up to fourteen decimals.
"""

import functools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from simulator.market.noise import IntArray, derive_key, hash_counter
from simulator.market.quarters import date_code, deliveries, delivery_of_code, onboard_of

MarketName = Literal["spot", "um", "cm"]

MARKETS: Final[tuple[MarketName, ...]] = ("spot", "um", "cm")
SPOT_DECIMALS = 8
PERPETUAL_SUFFIX = "_PERP"  # of COIN-M
QUARTERLY_SUFFIX = "_QUARTER"  # of a setting: all dated contracts of a pair
_MAX_AMOUNT_DECIMALS = 14
_DATED = re.compile(r"(?P<pair>.+)_(?P<date>\d{6})\Z")


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


@functools.lru_cache(maxsize=256)
def rounding_formatter(decimals: int, shown: int) -> Callable[[int], str]:
    """Return a printer of integers of 10^-`decimals`, rounded half up to fewer digits."""
    render = decimal_formatter(shown, shown)
    divisor = 10 ** (decimals - shown)
    return lambda value: render((value + divisor // 2) // divisor)


@functools.lru_cache(maxsize=4_096)
def _amount_decimals(greatest: int) -> int:
    """Return the decimals at which base amounts up to `greatest` (whole units) fit in 63 bits."""
    decimals = _MAX_AMOUNT_DECIMALS
    while decimals > SPOT_DECIMALS and greatest * 10**decimals >= 1 << 63:
        decimals -= 1
    return decimals


@dataclass(frozen=True, slots=True, kw_only=True)
class Instrument:
    """One symbol of one market.

    Attributes:
        tick, step: smallest change of price and quantity, in price and quantity units.
        typical_price: centre of the price path, in ticks.
        largest_fill: maximum quantity of one fill, in steps.
        orders_per_day: mean number of taker orders (aggTrades) per day.
        trades_at_bounds: the first and last orders of a minute are in its first and last instant.
        contract_size: value of a COIN-M contract in the quote asset; None: the quantity is in the
            base asset.
        onboard_us, delivery_us: when a dated contract is listed and delivered; None: perpetual.
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
    contract_size: int | None = None
    onboard_us: int | None = None
    delivery_us: int | None = None

    def __post_init__(self) -> None:
        if (self.contract_size is None) != (self.market != "cm"):
            raise ValueError(f"{self.symbol}: a contract_size is for COIN-M, and needed there")
        if not 0 < self.typical_price < 1 << 30:
            raise ValueError(f"{self.symbol}: typical_price must be in 1..2^30, in ticks")
        if not 0 < self.largest_fill < 1 << 31:
            raise ValueError(f"{self.symbol}: largest_fill must be in 1..2^31, in steps")
        if not 0 <= self.orders_per_day <= 20_000_000:
            raise ValueError(f"{self.symbol}: orders_per_day must be in 0..20,000,000")
        # Sums over a minute are int64. The price stays below twice the typical one; the busiest
        # minute has fewer than four times the mean number of orders, with half as many further
        # fills.
        if self._greatest_minute >= 1 << 63:
            raise ValueError(f"{self.symbol}: a minute's quote amount could exceed 63 bits")

    @property
    def _greatest_minute(self) -> int:
        """Return a bound of a minute's quote amount, in its units."""
        fills = 6 * self.orders_per_day // 1_440 + 8
        if self.contract_size is None:
            return 2 * self.typical_price * self.tick * self.largest_fill * self.step * fills
        return int(self._greatest_base(fills) * 10**self.quote_decimals)

    def _greatest_base(self, fills: int) -> int:
        """Return a bound of the base amount of fills. The price stays above half the typical."""
        value = (self.contract_size or 0) * self.largest_fill * self.step * 10**self.price_decimals
        return int(fills * (2 * value // (self.typical_price * self.tick) + 1))

    # --- the contract

    @property
    def is_inverse(self) -> bool:
        """Whether quantities are contracts, and quote amounts are in the base asset."""
        return self.contract_size is not None

    @property
    def is_dated(self) -> bool:
        """Whether the contract is delivered one day."""
        return self.delivery_us is not None

    @property
    def is_future(self) -> bool:
        """Whether the instrument is a contract of a futures market."""
        return self.market != "spot"

    @property
    def has_funding(self) -> bool:
        """Whether the contract pays funding: a perpetual one."""
        return self.is_future and not self.is_dated

    @property
    def pair(self) -> str:
        """The underlying pair, e.g. `BTCUSD` of `BTCUSD_PERP`."""
        return self.symbol.rpartition("_")[0] if self.is_inverse or self.is_dated else self.symbol

    @property
    def margin_asset(self) -> str:
        """The asset in which profit and loss are settled."""
        return self.base_asset if self.is_inverse else self.quote_asset

    @property
    def path_symbol(self) -> str:
        """The symbol whose price path this one follows: a dated contract's is the perpetual's."""
        if not self.is_dated:
            return self.symbol
        return self.pair + (PERPETUAL_SUFFIX if self.is_inverse else "")

    # --- units

    @property
    def product_decimals(self) -> int:
        """Decimals of price × quantity before rounding."""
        return self.price_decimals + self.quantity_decimals

    @property
    def quote_decimals(self) -> int:
        """Decimals of quote amounts: at most 8 on spot, as on the exchange."""
        if self.market == "spot":
            return min(SPOT_DECIMALS, self.product_decimals)
        if self.is_inverse:
            return _amount_decimals(self._greatest_base(6 * self.orders_per_day // 1_440 + 8))
        return self.product_decimals

    @property
    def rounds_quote(self) -> bool:
        """Whether the exchange cuts digits off the quote amount of each fill: tick × step is too
        fine."""
        return not self.is_inverse and self.quote_decimals < self.product_decimals

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
        if self.is_inverse:
            return rounding_formatter(self.quote_decimals, SPOT_DECIMALS)
        return self._formatter(self.quote_decimals)

    def quote_amounts(self, price: IntArray, quantity: IntArray) -> IntArray:
        """Return the quote amount of each fill, in its units."""
        if self.contract_size is None:
            amounts = price * quantity
            if self.rounds_quote:
                amounts //= self.quote_divisor  # the exchange cuts digits off
            return amounts
        # Long division, seven digits at a time, so that all numbers fit in 63 bits.
        result, rest = _divided(quantity * (self.contract_size * 10**self.price_decimals), price)
        left = self.quote_decimals
        while left:
            digits = min(left, 7)
            more, rest = _divided(rest * 10**digits, price)
            result = result * 10**digits + more
            left -= digits
        rounded: IntArray = result + (2 * rest >= price)
        return rounded


def _divided(numbers: IntArray, divisors: IntArray) -> tuple[IntArray, IntArray]:
    """Return quotients and rests."""
    quotients = numbers // divisors
    return quotients, numbers - quotients * divisors


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


def _cm(symbol: str, **values: Any) -> Instrument:
    base = symbol.removesuffix(f"USD{PERPETUAL_SUFFIX}")
    return Instrument(
        symbol=symbol,
        market="cm",
        base_asset=base,
        quote_asset="USD",
        quantity_decimals=0,
        contract_size=100 if base == "BTC" else 10,
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
    _cm("BTCUSD_PERP", price_decimals=1, typical_price=618_000, largest_fill=4_000,
        orders_per_day=60_000),
    _cm("ETHUSD_PERP", price_decimals=2, typical_price=268_000, largest_fill=20_000,
        orders_per_day=40_000),
)  # fmt: skip

DEFAULT_SPOT = tuple(item.symbol for item in _DEFAULTS if item.market == "spot")
DEFAULT_UM = tuple(item.symbol for item in _DEFAULTS if item.market == "um")
DEFAULT_CM = tuple(item.symbol for item in _DEFAULTS if item.market == "cm")
UM_QUARTERS = (f"BTCUSDT{QUARTERLY_SUFFIX}", f"ETHUSDT{QUARTERLY_SUFFIX}")
CM_QUARTERS = (f"BTCUSD{QUARTERLY_SUFFIX}", f"ETHUSD{QUARTERLY_SUFFIX}")
_KNOWN = {(item.market, item.symbol): item for item in _DEFAULTS}
_RECORDED_QUOTES = ("USDT", "USDC", "BUSD", "FDUSD", "BTC", "ETH", "BNB")
_QUOTES = ("USDT", "USDC", "FDUSD", "BTC", "ETH", "BNB", "EUR")


def invented(market: MarketName, symbol: str, *, seed: int) -> Instrument:
    """Return a perpetual contract or spot pair for any symbol, drawn from seed and name."""
    if market == "cm":
        return _invented_inverse(symbol, seed=seed)
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
        orders_per_day=_drawn_activity(drawn),
    )


def _invented_inverse(symbol: str, *, seed: int) -> Instrument:
    ending = f"USD{PERPETUAL_SUFFIX}"
    if not symbol.endswith(ending) or symbol == ending:
        raise ValueError(
            f"symbol {symbol!r} of COIN-M does not end with {ending}, a date or "
            f"{QUARTERLY_SUFFIX}: use BTC{ending}, BTCUSD_260327 or BTCUSD{QUARTERLY_SUFFIX}"
        )
    drawn = hash_counter(derive_key(seed, "cm", symbol, "listing"), 0)
    return _cm(
        symbol,
        price_decimals=2 + (drawn & 0x3),
        typical_price=1_000 + (drawn >> 16) % 400_000,
        largest_fill=50 + (drawn >> 36) % 5_000,
        orders_per_day=_drawn_activity(drawn),
    )


def _drawn_activity(drawn: int) -> int:
    """Return orders per day, log-uniform: from a few to one per second."""
    return (8 + (drawn >> 54) % 8) << ((drawn >> 57) % 13)


def _perpetual(market: MarketName, symbol: str, *, seed: int) -> Instrument:
    return _KNOWN.get((market, symbol)) or invented(market, symbol, seed=seed)


def dated_contract(market: MarketName, pair: str, delivery_us: int, *, seed: int) -> Instrument:
    """Return the contract of a pair that is delivered at a time: a quieter perpetual."""
    perpetual = _perpetual(market, pair + (PERPETUAL_SUFFIX if market == "cm" else ""), seed=seed)
    return replace(
        perpetual,
        symbol=f"{pair}_{date_code(delivery_us)}",
        orders_per_day=max(1, perpetual.orders_per_day // 20),
        onboard_us=onboard_of(delivery_us),
        delivery_us=delivery_us,
    )


def recorded_instrument(
    market: MarketName,
    symbol: str,
    *,
    price_decimals: int,
    quantity_decimals: int,
    tick: int = 1,
    step: int = 1,
    amounts_like: tuple[int, int, int] | None = None,
) -> Instrument:
    """Return the instrument of a recorded symbol; it generates nothing.

    Args:
        amounts_like: lowest price, greatest quantity and number of trades; they bound the decimals
            of COIN-M's amounts.
    """
    dated = _DATED.match(symbol) if market != "spot" else None
    name = dated["pair"] if dated is not None else symbol.removesuffix(PERPETUAL_SUFFIX)
    quote = next((one for one in _RECORDED_QUOTES if name.endswith(one) and name != one), "")
    size, price, quantity, trades = None, 1, 1, 0
    if market == "cm":
        quote = "USD"
        size = 100 if name == "BTCUSD" else 10
        lowest, largest, trades = amounts_like or (1, 1, 0)
        price, quantity = max(1, lowest // tick), max(1, largest // step)
    return Instrument(
        symbol=symbol,
        market=market,
        base_asset=name.removesuffix(quote),
        quote_asset=quote,
        price_decimals=price_decimals,
        quantity_decimals=quantity_decimals,
        typical_price=price,
        largest_fill=quantity,
        orders_per_day=min(20_000_000, 240 * trades),
        tick=tick,
        step=step,
        contract_size=size,
        delivery_us=None if dated is None else delivery_of_code(dated["date"]),
    )


def _named(
    market: MarketName, name: str, *, seed: int, period_us: tuple[int, int]
) -> list[Instrument]:
    """Return the instrument of a name, or the dated contracts of a pair."""
    if market != "spot":
        if name.endswith(QUARTERLY_SUFFIX):
            pair = name.removesuffix(QUARTERLY_SUFFIX)
            return [
                dated_contract(market, pair, delivery_us, seed=seed)
                for delivery_us in deliveries(*period_us)
            ]
        dated = _DATED.match(name)
        if dated is not None:
            try:
                delivery_us = delivery_of_code(dated["date"])
            except ValueError as error:
                raise ValueError(f"symbol {name!r}: {error}") from error
            return [dated_contract(market, dated["pair"], delivery_us, seed=seed)]
    return [_perpetual(market, name, seed=seed)]


def select_instruments(
    market: MarketName,
    symbols: Iterable[str],
    *,
    generated: int = 0,
    seed: int,
    period_us: tuple[int, int] = (0, 0),
) -> tuple[Instrument, ...]:
    """Return the named instruments, then the generated ones (`SIM0001USDT` …).

    Args:
        symbols: names; `BTCUSD_QUARTER` stands for all dated contracts of the pair BTCUSD.
        period_us: dated contracts that are listed at any time from here to there.
    """
    names = [*symbols, *(f"SIM{number:04d}USDT" for number in range(1, generated + 1))]
    chosen = [one for name in names for one in _named(market, name, seed=seed, period_us=period_us)]
    found = [one.symbol for one in chosen]
    if len(set(found)) != len(found):
        twice = {name for name in found if found.count(name) > 1} if len(found) < 100 else set()
        raise ValueError(f"symbols of {market} are listed twice: {sorted(twice)}")
    return tuple(chosen)
