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
    """The fields of ``exchangeInfo`` that are used."""

    symbols: list[_Symbol]


# A float would lose digits of a filter.
EXCHANGE_INFO = msgspec.json.Decoder(ExchangeInfo, float_hook=str)


def instruments_of(market: Market, info: ExchangeInfo) -> list[Instrument]:
    """Return the instruments of an answer.

    On USD-M only perpetual contracts. A symbol without a price or quantity step, such as one in
    preparation, is skipped and logged.
    """
    instruments = []
    for one in info.symbols:
        if market is Market.UM and PERPETUAL not in one.contract_type:
            continue
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
            continue
        instruments.append(
            Instrument(
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
        )
    return instruments


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
