"""Stream payloads and REST rows of trades and klines, from instrument units to text.

Payloads are formatted by hand: their keys are fixed, their values digits and plain names.
"""

from collections.abc import Callable

from simulator.market.instruments import Instrument, MarketName
from simulator.market.klines import Kline
from simulator.market.quarters import ContractType
from simulator.market.trades.columns import FillKind, TradeColumns

_BOOLEAN = ("false", "true")
KIND_NAMES = {
    FillKind.MARKET: "MARKET",
    FillKind.VOID: "NA",
    FillKind.INSURANCE_FUND: "INSURANCE_FUND",
    FillKind.ADL: "ADL",
}
US_PER_MS = 1_000


# (row of the trades, event time in µs, unit of time in µs) -> payload
RowText = Callable[[int, int, int], str]


def pair_field(instrument: Instrument) -> str:
    """Return the field `ps` of COIN-M's payloads, with a comma after it."""
    return f'"ps":"{instrument.pair}",' if instrument.market == "cm" else ""


def agg_trade_text(trades: TradeColumns) -> RowText:
    """Return a function of the `aggTrade` payload of each order; columns are converted once."""
    instrument = trades.instrument
    symbol = instrument.symbol
    prices = [*map(instrument.format_price, trades.price.tolist())]
    quantities = [*map(instrument.format_quantity, trades.quantity.tolist())]
    ids, times = trades.agg_id.tolist(), trades.time_us.tolist()
    first_ids, last_ids = trades.first_id.tolist(), (trades.first_id + trades.fills - 1).tolist()
    makers = [_BOOLEAN[maker] for maker in trades.buyer_is_maker.tolist()]

    def on_spot(row: int, event_us: int, unit_us: int) -> str:
        return (
            f'{{"e":"aggTrade","E":{event_us // unit_us},"s":"{symbol}","a":{ids[row]},'
            f'"p":"{prices[row]}","q":"{quantities[row]}","f":{first_ids[row]},'
            f'"l":{last_ids[row]},"T":{times[row] // unit_us},"m":{makers[row]},"M":true}}'
        )

    def on_um(row: int, event_us: int, unit_us: int) -> str:
        quantity = quantities[row]
        return (
            f'{{"e":"aggTrade","E":{event_us // unit_us},"a":{ids[row]},"s":"{symbol}",'
            f'"p":"{prices[row]}","q":"{quantity}","f":{first_ids[row]},"l":{last_ids[row]},'
            f'"T":{times[row] // unit_us},"m":{makers[row]},"nq":"{quantity}"}}'
        )

    def on_cm(row: int, event_us: int, unit_us: int) -> str:
        return (
            f'{{"e":"aggTrade","E":{event_us // unit_us},"a":{ids[row]},"s":"{symbol}",'
            f'"p":"{prices[row]}","q":"{quantities[row]}","f":{first_ids[row]},'
            f'"l":{last_ids[row]},"T":{times[row] // unit_us},"m":{makers[row]}}}'
        )

    texts: dict[MarketName, RowText] = {"spot": on_spot, "um": on_um, "cm": on_cm}
    return texts[instrument.market]


def trade_payloads(trades: TradeColumns, row: int, *, event_us: int, unit_us: int) -> list[str]:
    """Return the `trade` payloads of one order, one per fill that the exchange sends."""
    instrument = trades.instrument
    symbol = instrument.symbol
    event, time = event_us // unit_us, int(trades.time_us[row]) // unit_us
    price = instrument.format_price(int(trades.price[row]))
    maker = _BOOLEAN[bool(trades.buyer_is_maker[row])]
    quantity_text = instrument.format_quantity
    if instrument.market == "spot":
        return [
            f'{{"e":"trade","E":{event},"s":"{symbol}","t":{trade_id},"p":"{price}",'
            f'"q":"{quantity_text(quantity)}","T":{time},"m":{maker},"M":true}}'
            for trade_id, quantity, _ in fills_of(trades, row)
        ]
    payloads = []
    for trade_id, quantity, kind in fills_of(trades, row):
        units = fill_price(trades, row, kind)
        shown = (instrument.format_price(units), quantity_text(quantity)) if units else ("0", "0")
        payloads.append(
            f'{{"e":"trade","E":{event},"T":{time},"s":"{symbol}","t":{trade_id},'
            f'"p":"{shown[0]}","q":"{shown[1]}","X":"{KIND_NAMES[kind]}","m":{maker}}}'
        )
    return payloads


def fill_price(trades: TradeColumns, row: int, kind: FillKind) -> int:
    """Return the price of a fill: 0 if void, far from the market's if it is not a market trade."""
    if kind == FillKind.VOID:
        return 0
    price, tick = int(trades.price[row]), trades.instrument.tick
    if kind == FillKind.MARKET:
        return price
    away = max(1, price // tick // 50) * tick  # 2 %: the recorded one was 2 % above its minute
    return price + away if kind == FillKind.INSURANCE_FUND else max(tick, price - away)


def fills_of(trades: TradeColumns, row: int) -> list[tuple[int, int, FillKind]]:
    """Return id, quantity and kind of each fill of an order; skipped ids are omitted."""
    kind = FillKind(int(trades.tail_kind[row]))
    first_id, begin = int(trades.first_id[row]), int(trades.slot_start[row])
    count = 1 if kind == FillKind.SKIPPED else int(trades.slots[row])
    quantities: list[int] = trades.slot_quantity[begin : begin + count].tolist()
    return [
        (first_id + number, quantity, kind if number else FillKind.MARKET)
        for number, quantity in enumerate(quantities)
    ]


def kline_payload(
    instrument: Instrument,
    kline: Kline,
    *,
    interval: str,
    is_closed: bool,
    event_us: int,
    unit_us: int,
) -> str:
    """Return the `kline` payload; `T` is the next open less one unit of time."""
    symbol = instrument.symbol
    return (
        f'{{"e":"kline","E":{event_us // unit_us},"s":"{symbol}","k":{{'
        f'"t":{kline.open_time_us // unit_us},"T":{kline.close_time_us // unit_us},'
        f'"s":"{symbol}",{_kline_values(instrument, kline, interval, is_closed)}}}}}'
    )


def continuous_kline_payload(
    instrument: Instrument,
    kline: Kline,
    *,
    interval: str,
    is_closed: bool,
    event_us: int,
    unit_us: int,
    kind: ContractType,
) -> str:
    """Return the `continuous_kline` payload of a pair's contracts of a type."""
    return (
        f'{{"e":"continuous_kline","E":{event_us // unit_us},"ps":"{instrument.pair}",'
        f'"ct":"{kind}","k":{{'
        f'"t":{kline.open_time_us // unit_us},"T":{kline.close_time_us // unit_us},'
        f"{_kline_values(instrument, kline, interval, is_closed)}}}}}"
    )


def _kline_values(instrument: Instrument, kline: Kline, interval: str, is_closed: bool) -> str:
    price, quantity = instrument.format_price, instrument.format_quantity
    quote = instrument.format_quote
    return (
        f'"i":"{interval}","f":{kline.first_id},"L":{kline.last_id},'
        f'"o":"{price(kline.open)}","c":"{price(kline.close)}","h":"{price(kline.high)}",'
        f'"l":"{price(kline.low)}","v":"{quantity(kline.volume)}","n":{kline.trade_count},'
        f'"x":{_BOOLEAN[is_closed]},"q":"{quote(kline.quote_volume)}",'
        f'"V":"{quantity(kline.taker_buy_volume)}",'
        f'"Q":"{quote(kline.taker_buy_quote_volume)}","B":"0"'
    )


def kline_row(instrument: Instrument, kline: Kline, *, unit_us: int) -> list[int | str]:
    """Return the twelve elements of a REST kline."""
    price, quantity = instrument.format_price, instrument.format_quantity
    quote = instrument.format_quote
    return [
        kline.open_time_us // unit_us,
        price(kline.open),
        price(kline.high),
        price(kline.low),
        price(kline.close),
        quantity(kline.volume),
        kline.close_time_us // unit_us,
        quote(kline.quote_volume),
        kline.trade_count,
        quantity(kline.taker_buy_volume),
        quote(kline.taker_buy_quote_volume),
        "0",
    ]


def agg_trade_rows(trades: TradeColumns, *, unit_us: int) -> list[dict[str, int | str | bool]]:
    """Return the REST aggTrades of all orders."""
    instrument = trades.instrument
    price, quantity = instrument.format_price, instrument.format_quantity
    rows = []
    for agg_id, cost, amount, first_id, fills, time_us, maker in zip(
        trades.agg_id.tolist(),
        trades.price.tolist(),
        trades.quantity.tolist(),
        trades.first_id.tolist(),
        trades.fills.tolist(),
        trades.time_us.tolist(),
        trades.buyer_is_maker.tolist(),
        strict=True,
    ):
        row: dict[str, int | str | bool] = {
            "a": agg_id,
            "p": price(cost),
            "q": quantity(amount),
            "f": first_id,
            "l": first_id + fills - 1,
            "T": time_us // unit_us,
            "m": maker,
        }
        if instrument.market == "spot":
            row["M"] = True
        rows.append(row)
    return rows


def trade_rows(trades: TradeColumns, *, unit_us: int) -> list[dict[str, int | str | bool]]:
    """Return REST trades: one row per fill that is a market trade."""
    instrument = trades.instrument
    rows = []
    for row in range(len(trades)):
        price = instrument.format_price(int(trades.price[row]))
        begin = int(trades.slot_start[row])
        for number, (trade_id, quantity, kind) in enumerate(fills_of(trades, row)):
            if kind != FillKind.MARKET:
                continue
            entry: dict[str, int | str | bool] = {
                "id": trade_id,
                "price": price,
                "qty": instrument.format_quantity(quantity),
                "baseQty" if instrument.is_inverse else "quoteQty": instrument.format_quote(
                    int(trades.slot_quote[begin + number])
                ),
                "time": int(trades.time_us[row]) // unit_us,
                "isBuyerMaker": bool(trades.buyer_is_maker[row]),
            }
            if instrument.market == "spot":
                entry["isBestMatch"] = True
            rows.append(entry)
    return rows
