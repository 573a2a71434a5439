"""Instruments of a market (``exchangeInfo``), and prices at which contracts were delivered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec
import structlog

from include.binance.streams.messages import microseconds
from include.domain.instruments import Instrument, Market, market_of, symbol_of

log = structlog.get_logger(__name__)

NEVER_DELIVERED_MS = 4_133_404_800_000
"""``deliveryDate`` of a perpetual contract whose end is not announced: 2100-12-25."""


class _Symbol(msgspec.Struct, frozen=True):
    symbol: str
    base_asset: str = msgspec.field(name="baseAsset")
    quote_asset: str = msgspec.field(name="quoteAsset")
    filters: list[dict[str, Any]] = []
    status: str = ""
    contract_status: str = msgspec.field(name="contractStatus", default="")  # COIN-M
    # The fields below are of futures; times are ms.
    contract_type: str = msgspec.field(name="contractType", default="")
    contract_size: Any = msgspec.field(name="contractSize", default=None)  # COIN-M
    margin_asset: str = msgspec.field(name="marginAsset", default="")
    pair: str = ""
    onboard_date: int | None = msgspec.field(name="onboardDate", default=None)
    delivery_date: int | None = msgspec.field(name="deliveryDate", default=None)


class ExchangeInfo(msgspec.Struct, frozen=True):
    """The fields of ``exchangeInfo`` that are used; symbols are decoded one by one."""

    symbols: list[msgspec.Raw]


EXCHANGE_INFO = msgspec.json.Decoder(ExchangeInfo)
# A float would lose digits of a filter.
_SYMBOL = msgspec.json.Decoder(_Symbol, float_hook=str)


class DeliveryPrice(msgspec.Struct, frozen=True):
    """The price at which the dated contracts of a pair were settled."""

    delivery_time: int = msgspec.field(name="deliveryTime")  # ms
    price: Decimal = msgspec.field(name="deliveryPrice")


DELIVERY_PRICES = msgspec.json.Decoder(list[DeliveryPrice])


@dataclass(frozen=True, slots=True)
class ListedInstruments:
    """The instruments of an answer.

    Attributes:
        refused: why an instrument of the answer cannot be used, by platform symbol.
    """

    instruments: list[Instrument]
    refused: dict[str, str]


class _RefusedError(Exception):
    """The exchange lists an instrument that cannot be used."""


def instruments_of(market: Market, info: ExchangeInfo) -> ListedInstruments:
    """Return the instruments of an answer.

    A symbol without a price or quantity step, such as one in preparation, is skipped and logged,
    and so is one that cannot be read. A COIN-M contract without a contract size is refused, because
    no reader could say what its volumes count.

    Raises:
        msgspec.ValidationError: more than half of the symbols cannot be read.
    """
    instruments = []
    refused: dict[str, str] = {}
    unreadable = 0
    for raw in info.symbols:
        try:
            one = _SYMBOL.decode(raw)
            found = _instrument(market, one)
        except _RefusedError as error:
            symbol = symbol_of(market, one.symbol)
            refused[symbol] = str(error)
            log.warning("instrument_refused", market=market.value, symbol=symbol, error=str(error))
            continue
        except msgspec.ValidationError as error:
            unreadable += 1
            if 2 * unreadable > len(info.symbols):
                raise
            shown = bytes(memoryview(raw))[:80].decode(errors="replace")
            log.warning(
                "instrument_unreadable", market=market.value, begins=shown, error=str(error)
            )
            continue
        if found is not None:
            instruments.append(found)
    return ListedInstruments(instruments, refused)


def _instrument(market: Market, one: _Symbol) -> Instrument | None:
    """Return an instrument; None without steps.

    Raises:
        _RefusedError: it cannot be used, and why.
        msgspec.ValidationError: a field is missing or wrong.
    """
    symbol = symbol_of(market, one.symbol)
    if market_of(symbol) is not market:
        raise _RefusedError(
            f"{symbol} would be taken for a symbol of {market_of(symbol)}, not of {market}"
        )
    status = one.status or one.contract_status
    if not status:
        raise msgspec.ValidationError("neither status nor contractStatus is given")
    filters = {
        str(each["filterType"]): {
            name: value for name, value in each.items() if name != "filterType"
        }
        for each in one.filters
        if "filterType" in each
    }
    tick = _step(filters, "PRICE_FILTER", "tickSize")
    step = _step(filters, "LOT_SIZE", "stepSize")
    if not tick or not step:
        log.info("instrument_without_steps", market=market.value, symbol=one.symbol)
        return None
    contract_size = None
    if one.contract_size is not None:
        contract_size = _number(one.contract_size, "contractSize")
    if market.is_inverse and not (contract_size is not None and contract_size > 0):
        raise _RefusedError(
            f"contractSize is {one.contract_size!r}; should be the quote value of one contract"
        )
    delivers_ms = one.delivery_date or 0
    return Instrument(
        symbol=symbol,
        market=market,
        base_asset=one.base_asset,
        quote_asset=one.quote_asset,
        status=status,
        tick_size=tick,
        step_size=step,
        listed_at_us=microseconds(one.onboard_date) if one.onboard_date else None,
        filters=filters,
        contract_type=one.contract_type or None,
        contract_size=contract_size,
        margin_asset=one.margin_asset or None,
        pair=one.pair or None,
        delivers_at_us=(
            microseconds(delivers_ms) if 0 < delivers_ms < NEVER_DELIVERED_MS else None
        ),
    )


def _step(filters: Mapping[str, Mapping[str, Any]], kind: str, name: str) -> Decimal | None:
    value = filters.get(kind, {}).get(name)
    return None if value is None else _number(value, f"{kind}.{name}")


def _number(value: object, name: str) -> Decimal:
    try:
        number = Decimal(str(value))
    except InvalidOperation as error:
        raise msgspec.ValidationError(f"{name} is {value!r}, which is not a number") from error
    if not number.is_finite():
        raise msgspec.ValidationError(f"{name} is {value!r}, which is not a finite number")
    return number
