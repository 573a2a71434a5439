"""A simulated exchange and settings that point to it and to the test's database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.config import Settings
from include.domain.candles import Candle
from include.domain.instruments import exchange_symbol_of, market_of
from include.store.postgres.pools import connect
from simulator.config import SimulatorConfig
from simulator.server import ExchangeThread
from tests.integration.jobs.faulty_host import FaultyHost, faulty_host

CLOCK_START = datetime(2026, 11, 20, 6, tzinfo=UTC)
QUICK_KILLS = 2
HISTORY_START = datetime(2026, 11, 17, tzinfo=UTC)


@pytest.fixture(scope="module")
def exchange() -> Iterator[ExchangeThread]:
    """A local Binance: three days and six hours of history, its clock running."""
    config = SimulatorConfig(
        spot_symbols=("BTCUSDT", "ETHBTC", "COSUSDT", "BIFIUSDT"),
        um_symbols=("ETHUSDT",),
        start=HISTORY_START,
        clock_start=CLOCK_START,
    )
    with ExchangeThread(config) as running:
        yield running


def as_role(database_url: str, role: str) -> str:
    """The owner's URL with the rights of a role, which has no password here."""
    return f"{database_url}?options=-c%20role%3D{role}"


@pytest.fixture
def raw_settings(database_url: str, tmp_path: Path) -> Settings:
    """The jobs' own role, which may drop nothing by itself; no exchange."""
    return Settings(
        jobs_database_url=as_role(database_url, "candelabra_jobs"), candelabra_home=tmp_path
    )


@pytest.fixture
def jobs_connection(raw_settings: Settings) -> Iterator[psycopg.Connection[Any]]:
    with connect(raw_settings.jobs_database_url, application_name="test") as opened:
        yield opened


@pytest.fixture
def make_settings(
    exchange: ExchangeThread, database_url: str, tmp_path: Path
) -> Callable[..., Settings]:
    """Settings that point to the exchange and the test's database, with others over them."""

    def make(**others: object) -> Settings:
        return Settings(
            **{
                # the jobs' own role: what it may not do fails here
                "jobs_database_url": as_role(database_url, "candelabra_jobs"),
                "streamer_database_url": as_role(database_url, "candelabra_streamer"),
                "binance_rest_url": exchange.spot_rest_url,
                "binance_um_rest_url": exchange.um_rest_url,
                "binance_cm_rest_url": exchange.cm_rest_url,
                "binance_dump_url": exchange.dump_url,
                "binance_dump_list_url": exchange.dump_url,
                "candelabra_home": tmp_path / "home",
                **others,
            }
        )

    return make


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings()


@pytest.fixture
def host(exchange: ExchangeThread) -> Iterator[FaultyHost]:
    """A host in front of the exchange's REST and dumps that changes answers."""
    with faulty_host(exchange.spot_rest_url) as running:
        yield running


@pytest.fixture
def through_host(host: FaultyHost, make_settings: Callable[..., Settings]) -> Settings:
    """Settings that send all requests to ``host``."""
    return make_settings(
        binance_rest_url=host.url,
        binance_um_rest_url=host.url,
        binance_cm_rest_url=host.url,
        binance_dump_url=host.url,
        binance_dump_list_url=host.url,
    )


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_url, autocommit=True) as opened:
        yield opened


@pytest.fixture
def oracle(exchange: ExchangeThread) -> Callable[[str, int, int], list[Candle]]:
    """The exchange's own candles of a symbol in [start, end)."""

    def candles(symbol: str, start_us: int, end_us: int) -> list[Candle]:
        market = exchange.markets[market_of(symbol).value]
        name = exchange_symbol_of(symbol)
        unit = market.instrument(name)
        return [
            Candle(
                symbol,
                one.open_time_us,
                Decimal(unit.format_price(one.open)),
                Decimal(unit.format_price(one.high)),
                Decimal(unit.format_price(one.low)),
                Decimal(unit.format_price(one.close)),
                Decimal(unit.format_quantity(one.volume)),
                Decimal(unit.format_quote(one.quote_volume)),
                one.trade_count,
                Decimal(unit.format_quantity(one.taker_buy_volume)),
                Decimal(unit.format_quote(one.taker_buy_quote_volume)),
            )
            for one in market.klines(
                name, "1m", start_us, end_us - 1, view_us=exchange.clock.now_us()
            )
        ]

    return candles


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run two kill points of each job in `make test`, and all of them with the long tests."""
    here, seen = Path(__file__).parent, Counter[str]()
    for item in items:
        if here in item.path.parents and item.path.stem.endswith("_kills"):
            name = item.nodeid.partition("[")[0]
            seen[name] += 1
            if seen[name] > QUICK_KILLS:
                item.add_marker(pytest.mark.long)
