"""Paths are those of the exchange's dump site, for every kind of file."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from include.binance.files.dump_paths import dump_path

MOMENT = datetime(2026, 11, 19, tzinfo=UTC)


@pytest.mark.parametrize(
    ("symbol", "kind", "period", "interval", "path"),
    [
        ("BTCUSDT", "aggTrades", "daily", "1m",
         "data/spot/daily/aggTrades/BTCUSDT/BTCUSDT-aggTrades-2026-11-19.zip"),
        ("BTCUSDT.P", "trades", "monthly", "1m",
         "data/futures/um/monthly/trades/BTCUSDT/BTCUSDT-trades-2026-11.zip"),
        ("BTCUSDT.P", "klines", "daily", "1h",
         "data/futures/um/daily/klines/BTCUSDT/1h/BTCUSDT-1h-2026-11-19.zip"),
        ("BTCUSDT", "klines", "monthly", "1M",
         "data/spot/monthly/klines/BTCUSDT/1mo/BTCUSDT-1mo-2026-11.zip"),
    ],
)  # fmt: skip
def test_paths_equal_those_of_the_site(
    symbol: str, kind: str, period: str, interval: str, path: str
) -> None:
    assert dump_path(symbol, kind, period, MOMENT, interval=interval) == path


@pytest.mark.parametrize(
    ("symbol", "kind", "period", "path"),
    [
        ("BTCUSDT.P", "metrics", "daily",
         "data/futures/um/daily/metrics/BTCUSDT/BTCUSDT-metrics-2026-11-19.zip"),
        ("BTCUSD_PERP", "fundingRate", "monthly",
         "data/futures/cm/monthly/fundingRate/BTCUSD_PERP/BTCUSD_PERP-fundingRate-2026-11.zip"),
        ("BTCUSDT.P", "markPriceKlines", "daily",
         "data/futures/um/daily/markPriceKlines/BTCUSDT/1m/BTCUSDT-1m-2026-11-19.zip"),
        ("BTCUSD_PERP", "indexPriceKlines", "monthly",
         "data/futures/cm/monthly/indexPriceKlines/BTCUSD/1m/BTCUSD-1m-2026-11.zip"),
    ],
)  # fmt: skip
def test_paths_of_series_equal_those_of_the_site(
    symbol: str, kind: str, period: str, path: str
) -> None:
    assert dump_path(symbol, kind, period, MOMENT) == path
