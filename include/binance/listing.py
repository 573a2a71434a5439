"""``exchangeInfo``: the instruments of a market."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import structlog

from include.binance.frames import microseconds
from include.domain.instruments import Instrument, Market, symbol_of

log = structlog.get_logger(__name__)

PERPETUAL = "PERPETUAL"


class _Filter(msgspec.Struct, frozen=True):
    kind: str = msgspec.field(name="filterType")
    tick_size: Decimal | None = msgspec.field(name="tickSize", default=None)
    step_size: Decimal | None = msgspec.field(name="stepSize", default=None)


class _Symbol(msgspec.Struct, frozen=True):
    symbol: str
    status: str
    base_asset: str = msgspec.field(name="baseAsset")
    quote_asset: str = msgspec.field(name="quoteAsset")
    filters: list[_Filter] = []
    contract_type: str = msgspec.field(name="contractType", default="")  # USD-M
    onboard_date: int | None = msgspec.field(name="onboardDate", default=None)  # USD-M, ms


class ExchangeInfo(msgspec.Struct, frozen=True):
    """The part of ``exchangeInfo`` that is used."""

    symbols: list[_Symbol]


EXCHANGE_INFO = msgspec.json.Decoder(ExchangeInfo)


def instruments_of(market: Market, info: ExchangeInfo) -> list[Instrument]:
    """Instruments of an answer.

    Of USD-M those whose contract type names a perpetual (delivery contracts are other things).
    A symbol without a price or quantity step, such as one in preparation, is left out and logged.
    """
    instruments = []
    for one in info.symbols:
        if market is Market.UM and PERPETUAL not in one.contract_type:
            continue
        tick = _step(one.filters, "PRICE_FILTER")
        step = _step(one.filters, "LOT_SIZE")
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
            )
        )
    return instruments


def _step(filters: list[_Filter], kind: str) -> Decimal | None:
    for one in filters:
        if one.kind == kind:
            return one.tick_size if kind == "PRICE_FILTER" else one.step_size
    return None
