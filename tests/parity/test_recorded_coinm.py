"""COIN-M frames and listings recorded from the real exchange."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from include.binance.rest.listing import EXCHANGE_INFO, instruments_of
from include.binance.streams.messages import AggTrade, Kline, Trade, decode
from include.domain.candle_builder import CandleBuilder
from include.domain.candles import differing_values
from include.domain.instruments import Market, market_of

pytestmark = pytest.mark.recorded

SESSION = "ws-coinm-cryptofeed-2021/BINANCE_DELIVERY.jsonl.zst"


def entries(file: Path) -> list[dict[str, Any]]:
    rows = pl.read_csv(file, separator="\x01", has_header=False, quote_char=None).rows()
    return [json.loads(line) for (line,) in rows]


def test_recorded_contracts_have_terms_and_names_of_their_market(recorded_data: Path) -> None:
    (info,) = (
        one["data"]
        for one in entries(recorded_data / SESSION)
        if one["t"] == "http" and one["url"].endswith("/dapi/v1/exchangeInfo")
    )
    found = instruments_of(Market.CM, EXCHANGE_INFO.decode(info))
    assert (len(found.instruments), found.refused) == (36, {})
    assert {market_of(one.symbol) for one in found.instruments} == {Market.CM}
    assert {one.contract_size for one in found.instruments} == {Decimal(10), Decimal(100)}
    for one in found.instruments:
        assert (one.delivers_at_us is None) == one.symbol.endswith("_PERP"), one.symbol
        assert one.margin_asset == one.base_asset


def test_frame_plus_the_trades_after_it_equals_each_later_frame(recorded_data: Path) -> None:
    found: dict[str, tuple[list[AggTrade], list[Kline]]] = defaultdict(lambda: ([], []))
    for one in entries(recorded_data / SESSION):
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


def test_ids_of_recorded_trades_are_contiguous_over_midnight(recorded_data: Path) -> None:
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
