"""COIN-M as recorded: the arithmetic of base amounts, and the fields of exchangeInfo."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest

from simulator.config import SimulatorConfig
from simulator.market.instruments import Instrument, recorded_instrument
from simulator.server import ExchangeThread

pytestmark = pytest.mark.recorded

SESSION = "ws-coinm-cryptofeed-2021/BINANCE_DELIVERY.jsonl.zst"
HALF = Decimal("0.5e-8")


def _entries(file: Path) -> list[dict[str, Any]]:
    rows = pl.read_csv(file, separator="\x01", has_header=False, quote_char=None).rows()
    return [json.loads(line) for (line,) in rows]


def _frames(file: Path) -> list[dict[str, Any]]:
    frames = [json.loads(one["data"]) for one in _entries(file) if one["t"] == "recv"]
    return [frame["data"] for frame in frames if "data" in frame]


def _instrument(symbol: str, trades: list[dict[str, Any]]) -> Instrument:
    decimals = len(trades[0]["p"].partition(".")[2])
    prices = [int(Decimal(one["p"]).scaleb(decimals)) for one in trades]
    largest = max(int(one["q"]) for one in trades)
    return recorded_instrument(
        "cm",
        symbol,
        price_decimals=decimals,
        quantity_decimals=0,
        amounts_like=(min(prices), largest, len(trades)),
    )


def _amounts(instrument: Instrument, trades: list[dict[str, Any]]) -> list[Decimal]:
    decimals = instrument.price_decimals
    prices = np.array([int(Decimal(one["p"]).scaleb(decimals)) for one in trades], dtype=np.int64)
    contracts = np.array([int(one["q"]) for one in trades], dtype=np.int64)
    units = instrument.quote_amounts(prices, contracts).tolist()
    return [Decimal(unit).scaleb(-instrument.quote_decimals) for unit in units]


def test_recorded_klines_are_the_rounded_sums_of_exact_amounts(recorded_data: Path) -> None:
    """The first frame of a minute bounds what came before it; each later one has to fit.

    Sums of amounts that were rounded one by one do not fit.
    """
    trades: dict[str, list[dict[str, Any]]] = defaultdict(list)
    klines: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for frame in _frames(recorded_data / SESSION):
        if frame["e"] == "aggTrade":
            trades[frame["s"]].append(frame)
        elif frame["e"] == "kline":
            klines[frame["s"], frame["k"]["t"]].append(frame["k"])
    compared = misfits = 0
    for (symbol, _), minute in klines.items():
        if not trades[symbol]:
            continue
        instrument = _instrument(symbol, trades[symbol])
        first, *later = sorted(minute, key=lambda kline: kline["L"])
        low, high = Decimal(first["q"]) - HALF, Decimal(first["q"]) + HALF
        for kline in later:
            part = [
                one for one in trades[symbol] if first["L"] < one["f"] <= one["l"] <= kline["L"]
            ]
            contracts = int(kline["v"]) - int(first["v"])
            if not part or sum(int(one["q"]) for one in part) != contracts:
                continue  # it ends within an aggTrade, or some were not recorded
            amounts = _amounts(instrument, part)
            low = max(low, Decimal(kline["q"]) - HALF - sum(amounts))
            high = min(high, Decimal(kline["q"]) + HALF - sum(amounts))
            rounded = sum(one.quantize(Decimal("1e-8"), ROUND_HALF_UP) for one in amounts)
            misfits += rounded != Decimal(kline["q"]) - Decimal(first["q"])
            compared += 1
        assert low <= high, (symbol, low, high)
    assert compared >= 8
    assert misfits >= 4


def test_exchange_info_has_the_recorded_fields(recorded_data: Path) -> None:
    (text,) = (
        one["data"]
        for one in _entries(recorded_data / SESSION)
        if one["t"] == "http" and one["url"].endswith("/dapi/v1/exchangeInfo")
    )
    recorded = json.loads(text)
    config = SimulatorConfig(clock_start=datetime(2021, 7, 22, tzinfo=UTC), speed=0)
    with ExchangeThread(config) as exchange:
        found = httpx.get(f"{exchange.cm_rest_url}/dapi/v1/exchangeInfo").json()
    assert list(found) == list(recorded)
    assert found["rateLimits"] == recorded["rateLimits"]
    simulated = {one["symbol"]: one for one in found["symbols"]}
    wanted = {one["symbol"]: one for one in recorded["symbols"] if one["symbol"] in simulated}
    assert set(simulated) == set(wanted)  # both have the contracts of BTC and ETH of that day
    for symbol, entry in simulated.items():
        assert list(entry) == list(wanted[symbol])
        changing = {"onboardDate"} if entry["contractType"] == "PERPETUAL" else set()
        for name in set(entry) - {"filters"} - changing:
            assert entry[name] == wanted[symbol][name], (symbol, name)
        assert [list(one) for one in entry["filters"]] == [
            list(one) for one in wanted[symbol]["filters"]
        ]
