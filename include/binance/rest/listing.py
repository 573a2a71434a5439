"""``exchangeInfo``: the instruments of a market."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec
import structlog

from include.binance.streams.messages import microseconds
from include.domain.instruments import Instrument, Market, symbol_of

log = structlog.get_logger(__name__)

PERPETUAL = "PERPETUAL"


class _Symbol(msgspec.Struct, frozen=True):
    symbol: str
    status: str
    base_asset: str = msgspec.field(name="baseAsset")
    quote_asset: str = msgspec.field(name="quoteAsset")
    filters: list[dict[str, Any]] = []
    contract_type: str = msgspec.field(name="contractType", default="")  # USD-M
    onboard_date: int | None = msgspec.field(name="onboardDate", default=None)  # USD-M, ms


class ExchangeInfo(msgspec.Struct, frozen=True):
    """The fields of ``exchangeInfo`` that are used; symbols are decoded one by one."""

    symbols: list[msgspec.Raw]


EXCHANGE_INFO = msgspec.json.Decoder(ExchangeInfo)
# A float would lose digits of a filter.
_SYMBOL = msgspec.json.Decoder(_Symbol, float_hook=str)


def instruments_of(market: Market, info: ExchangeInfo) -> list[Instrument]:
    """Return the instruments of an answer.

    On USD-M only perpetual contracts. A symbol without a price or quantity step, such as one in
    preparation, is skipped and logged, and so is one that cannot be read.

    Raises:
        msgspec.ValidationError: more than half of the symbols cannot be read.
    """
    instruments = []
    unreadable = 0
    for raw in info.symbols:
        try:
            found = _instrument(market, _SYMBOL.decode(raw))
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
    return instruments


def _instrument(market: Market, one: _Symbol) -> Instrument | None:
    if market is Market.UM and PERPETUAL not in one.contract_type:
        return None
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
    return Instrument(
        symbol=symbol_of(market, one.symbol),
        market=market,
        base_asset=one.base_asset,
        quote_asset=one.quote_asset,
        status=one.status,
        tick_size=tick,
        step_size=step,
        listed_at_us=microseconds(one.onboard_date) if one.onboard_date else None,
        filters=filters,
    )


def _step(filters: Mapping[str, Mapping[str, Any]], kind: str, name: str) -> Decimal | None:
    value = filters.get(kind, {}).get(name)
    if value is None:
        return None
    try:
        return Decimal(str(value))
    except InvalidOperation as error:
        raise msgspec.ValidationError(
            f"{kind}.{name} is {value!r}, which is not a number"
        ) from error
