"""Frames recorded from the real exchange, against the exchange's own candles."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from include.binance.rest.listing import EXCHANGE_INFO, instruments_of
from include.binance.streams.liquidations import ForceOrder, decode_with_liquidations
from include.binance.streams.messages import AggTrade, Kline, Trade, decode, microseconds
from include.domain.candle_builder import CandleBuilder
from include.domain.candles import differing_values
from include.domain.instruments import Market, market_of
from include.domain.timeframes import MINUTE_US, minute_of
from streamer.exchange.liquidations import liquidation_of

pytestmark = pytest.mark.recorded


def frames_2021(file: Path) -> Iterator[AggTrade | Kline]:
    with gzip.open(file, "rt") as lines:
        for line in lines:
            _, separator, text = line.partition(": ")
            if separator and text.startswith('{"stream"'):
                frame = decode(text.strip())
                if isinstance(frame, AggTrade | Kline):
                    yield frame


def by_symbol(file: Path) -> dict[str, tuple[list[AggTrade], list[Kline]]]:
    found: dict[str, tuple[list[AggTrade], list[Kline]]] = defaultdict(lambda: ([], []))
    for frame in frames_2021(file):
        trades, klines = found[frame.symbol]
        (trades if isinstance(frame, AggTrade) else klines).append(frame)  # type: ignore[arg-type]
    return found


def test_each_kline_frame_equals_the_aggregated_agg_trades(recorded_data: Path) -> None:
    """Frames whose minute is covered from its first trade on, and that end with an aggTrade."""
    file = recorded_data / "ws-cryptofeed-2021" / "BINANCE-ee25be.0.8980a803.gz"
    compared = inside = uncovered = 0
    for trades, klines in by_symbol(file).values():
        firsts = {trade.first_trade_id for trade in trades}
        lasts = {trade.last_trade_id for trade in trades}
        for kline in klines:
            body = kline.body
            if body.first_trade_id not in firsts:
                uncovered += 1
                continue
            if body.last_trade_id not in lasts:
                inside += 1
                continue
            builder = CandleBuilder(kline.symbol, microseconds(body.open_time))
            for trade in trades:
                if body.first_trade_id <= trade.first_trade_id <= body.last_trade_id:
                    builder.add(trade)
            assert differing_values(builder.candle(), kline.candle(kline.symbol)) == []
            compared += 1
    assert compared >= 40, (compared, inside, uncovered)


@pytest.mark.parametrize(
    "name", ["BINANCE-ee25be.0.8980a803.gz", "BINANCE_FUTURES.ws.1.0.79508fc5.gz"]
)
def test_frame_plus_the_trades_after_it_equals_each_later_frame(
    recorded_data: Path, name: str
) -> None:
    """The assumption behind seeding the open candle."""
    compared = 0
    for trades, klines in by_symbol(recorded_data / "ws-cryptofeed-2021" / name).values():
        lasts = {trade.last_trade_id for trade in trades}
        usable = [k for k in klines if k.body.last_trade_id in lasts]
        for index, seed in enumerate(usable):
            for later in usable[index + 1 :]:
                if later.body.open_time != seed.body.open_time:
                    continue
                builder = CandleBuilder.from_candle(seed.candle(seed.symbol))
                for trade in trades:
                    if seed.body.last_trade_id < trade.first_trade_id <= later.body.last_trade_id:
                        builder.add(trade)
                assert differing_values(builder.candle(), later.candle(later.symbol)) == []
                compared += 1
    assert compared >= 100, compared


def test_futures_trades_give_the_five_official_minutes(recorded_data: Path) -> None:
    folder = recorded_data / "ws-usdm-vs-klines-20240808"
    builders: dict[int, CandleBuilder] = {}
    with gzip.open(folder / "btcusdt_20240808.gz", "rt") as lines:
        for line in lines:
            if '"btcusdt@trade"' not in line:
                continue
            trade = decode(line.split(" ", 1)[1].strip())
            assert isinstance(trade, Trade)
            if not trade.price or not trade.quantity:
                continue
            minute = minute_of(microseconds(trade.trade_time))
            builders.setdefault(minute, CandleBuilder("BTCUSDT.P", minute)).add(trade)
    official = (folder / "BTCUSDT-1m-2024-08.excerpt-20240808T2354-20240809T0005.csv").read_text()
    lines_of_csv = official.splitlines()[1:]
    rows = {int(line.split(",")[0]) * 1000: line.split(",") for line in lines_of_csv}
    whole = sorted(builders)[1:6]
    assert len(whole) == 5
    assert whole[-1] - whole[0] == 4 * MINUTE_US
    for minute in whole:
        theirs = tuple(Decimal(rows[minute][column]) for column in (1, 2, 3, 4, 5, 7, 8, 9, 10))
        assert builders[minute].candle().values == theirs, minute


@pytest.mark.parametrize(
    ("file", "count"),
    [("forceorder-frames/frames.jsonl", 5), ("derivatives-small/frames-tardis.jsonl", 2)],
)
def test_recorded_liquidations_keep_their_values(
    recorded_data: Path, file: str, count: int
) -> None:
    texts = [text for text in (recorded_data / file).read_bytes().splitlines() if b"forceO" in text]
    assert len(texts) == count
    ids = set()
    for text in texts:
        sent = json.loads(text)
        # Some were recorded from a connection of a single stream, without its name.
        wrapped = sent if "stream" in sent else {"stream": "x@forceOrder", "data": sent}
        frame = decode_with_liquidations(json.dumps(wrapped, separators=(",", ":")).encode())
        assert isinstance(frame, ForceOrder)
        one, order = liquidation_of(Market.UM, frame, 1), wrapped["data"]["o"]
        assert (one.symbol, one.order_us) == (order["s"] + ".P", order["T"] * 1_000)
        assert one.event_us == wrapped["data"]["E"] * 1_000
        assert (one.side, one.order_type, one.time_in_force, one.order_status) == tuple(
            order[key] for key in "SofX"
        )
        assert (
            one.quantity, one.price, one.average_price, one.last_filled_quantity,
            one.accumulated_quantity,
        ) == tuple(Decimal(order[key]) for key in ("q", "p", "ap", "l", "z"))  # fmt: skip
        ids.add(one.id)
    assert len(ids) == count


# --- COIN-M

COIN_M_SESSION = "ws-coinm-cryptofeed-2021/BINANCE_DELIVERY.jsonl.zst"


def entries(file: Path) -> list[dict[str, Any]]:
    rows = pl.read_csv(file, separator="\x01", has_header=False, quote_char=None).rows()
    return [json.loads(line) for (line,) in rows]


def test_recorded_contracts_have_terms_and_names_of_their_market(recorded_data: Path) -> None:
    (info,) = (
        one["data"]
        for one in entries(recorded_data / COIN_M_SESSION)
        if one["t"] == "http" and one["url"].endswith("/dapi/v1/exchangeInfo")
    )
    found = instruments_of(Market.CM, EXCHANGE_INFO.decode(info))
    assert (len(found.instruments), found.refused) == (36, {})
    assert {market_of(one.symbol) for one in found.instruments} == {Market.CM}
    assert {one.contract_size for one in found.instruments} == {Decimal(10), Decimal(100)}
    for one in found.instruments:
        assert (one.delivers_at_us is None) == one.symbol.endswith("_PERP"), one.symbol
        assert one.margin_asset == one.base_asset


def test_coin_m_frame_plus_trades_equals_later_frames_except_amounts(recorded_data: Path) -> None:
    found: dict[str, tuple[list[AggTrade], list[Kline]]] = defaultdict(lambda: ([], []))
    for one in entries(recorded_data / COIN_M_SESSION):
        frame = decode(one["data"]) if one["t"] == "recv" else None
        if isinstance(frame, AggTrade):
            found[frame.symbol][0].append(frame)
        elif isinstance(frame, Kline):
            found[frame.symbol][1].append(frame)
    compared = 0
    for trades, klines in found.values():
        lasts = {trade.last_trade_id for trade in trades}
        usable = [one for one in klines if one.body.last_trade_id in lasts]
        for index, seed in enumerate(usable):
            for later in usable[index + 1 :]:
                if later.body.open_time != seed.body.open_time:
                    continue
                builder = CandleBuilder.from_candle(seed.candle(seed.symbol))
                for trade in trades:
                    if seed.body.last_trade_id < trade.first_trade_id <= later.body.last_trade_id:
                        builder.add(trade)
                ours, theirs = builder.candle(), later.candle(later.symbol)
                assert set(differing_values(ours, theirs)) <= {
                    "quote_volume", "taker_buy_quote_volume",
                }  # fmt: skip
                compared += 1
    assert compared >= 20, compared


def test_ids_of_recorded_coin_m_trades_are_contiguous_over_midnight(recorded_data: Path) -> None:
    ids: list[int] = []
    for file in sorted((recorded_data / "ws-coinm-20240808").glob("*.gz")):
        with gzip.open(file, "rt") as lines:
            for line in lines:
                if '"btcusd_perp@trade"' in line:
                    trade = decode(line.split(" ", 1)[1].strip())
                    assert isinstance(trade, Trade)
                    ids.append(trade.id)
    assert len(ids) > 1_000
    assert ids == list(range(ids[0], ids[0] + len(ids)))
