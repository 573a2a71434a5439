"""Watched symbols are streamed within seconds, and dropped when no longer watched."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import httpx
import psycopg
import pytest
from websockets.asyncio.client import connect as connect_socket

from include.domain.accounts import Role
from include.domain.instruments import Instrument, Market
from include.domain.timeframes import MINUTE_US
from include.store.accounts import users as accounts
from include.store.accounts import watchlists
from include.store.accounts.credentials import new_token, secret_hash
from include.store.instruments import write_instruments
from include.store.ledgers.gaps import open_gap
from include.store.postgres.pools import connect
from simulator.config import SimulatorConfig
from simulator.server import Exchange
from streamer.app import Streamer
from tests.integration.streamer.harness import (
    assert_equal_to_the_exchange,
    damage,
    is_verified,
    minutes_of,
    open_gaps,
    settings_for,
    streaming,
    wait_for_rows,
)

HASH = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaA"
SPEED = 30
NO_REFRESH_S = 3_600.0
"""Seconds between refreshes of the exchange's list: too long to matter in these tests."""


@pytest.fixture
def anna(database_url: str) -> int:
    with connect(database_url, application_name="test") as connection:
        accounts.add_user(connection, "anna", HASH, Role.READER)
        found = accounts.password_of(connection, "anna")
    assert found is not None
    return found.user_id


def change(database_url: str, call: Callable[[psycopg.Connection[Any]], object]) -> None:
    with connect(database_url, application_name="test") as connection:
        call(connection)


async def until(is_so: Callable[[], bool], *, timeout_s: float = 30) -> None:
    async with asyncio.timeout(timeout_s):
        while not is_so():
            await asyncio.sleep(0.02)


def subscribed(exchange: Exchange) -> set[str]:
    """Symbols whose streams clients have."""
    return {
        stream.partition("@")[0].upper() + (".P" if market == "um" else "")
        for market in ("spot", "um")
        for one in exchange.stream_servers[market].connections
        for stream in one.streams
    }


async def test_watched_symbol_is_streamed_within_seconds_and_dropped_when_unwatched(
    database_url: str, anna: int
) -> None:
    config = SimulatorConfig(
        speed=SPEED, spot_symbols=("BTCUSDT", "ETHUSDT"), um_symbols=("BTCUSDT",)
    )
    async with Exchange(config) as exchange:
        settings = settings_for(exchange, database_url, symbols_refresh_s=NO_REFRESH_S)
        async with streaming(settings, "BTCUSDT") as streamer:
            await until(lambda: subscribed(exchange) == {"BTCUSDT"})
            for symbol in ("BTCUSDT", "ETHUSDT", "BTCUSDT.P", "NOSUCHUSDT"):
                change(database_url, lambda c, one=symbol: watchlists.watch(c, anna, one))  # type: ignore[misc]
            await until(lambda: set(streamer.hub.symbols) == {"BTCUSDT", "ETHUSDT", "BTCUSDT.P"})
            await until(lambda: subscribed(exchange) == set(streamer.hub.symbols))
            rows = await wait_for_rows(
                database_url,
                lambda rows: all(
                    len(minutes_of(rows, one)) >= 2 for one in ("ETHUSDT", "BTCUSDT.P")
                ),
            )
            for symbol in ("BTCUSDT", "ETHUSDT", "BTCUSDT.P"):
                change(database_url, lambda c, one=symbol: watchlists.unwatch(c, anna, one))  # type: ignore[misc]
            # What the settings ask for stays.
            await until(lambda: streamer.hub.symbols == ["BTCUSDT"])
            await until(lambda: subscribed(exchange) == {"BTCUSDT"})
            await assert_equal_to_the_exchange(exchange, rows, ["ETHUSDT", "BTCUSDT.P"])


async def test_watched_symbols_continue_after_a_restart_and_a_lost_notification(
    database_url: str, anna: int
) -> None:
    config = SimulatorConfig(speed=SPEED, spot_symbols=("BTCUSDT", "ETHUSDT", "PEPEUSDT"))
    change(database_url, lambda c: watchlists.watch(c, anna, "ETHUSDT"))
    async with Exchange(config) as exchange:
        settings = settings_for(exchange, database_url, symbols_refresh_s=NO_REFRESH_S)

        def follows(streamer: Streamer, *symbols: str) -> Callable[[], bool]:
            return lambda: set(streamer.hub.symbols) == {"BTCUSDT", *symbols}

        async with streaming(settings, "BTCUSDT") as streamer:
            await until(follows(streamer, "ETHUSDT"))
            with connect(database_url, application_name="test") as connection:
                # It listens again after a tenth of a second, so these notifications are lost.
                cut = connection.execute(
                    "WITH cut AS (SELECT pg_terminate_backend(pid) AS done FROM pg_stat_activity "
                    "WHERE datname = current_database() AND application_name = 'candelabra-watch')"
                    "SELECT count(*) FROM cut WHERE done"
                ).fetchone()
                assert cut == (1,)
                watchlists.watch(connection, anna, "PEPEUSDT")
                watchlists.unwatch(connection, anna, "ETHUSDT")
            await until(follows(streamer, "PEPEUSDT"))
            change(database_url, lambda c: accounts.set_disabled(c, "anna", is_disabled=True))
            await until(follows(streamer))


@pytest.mark.long
async def test_missing_minutes_of_a_watched_symbol_are_fetched_after_a_restart(
    database_url: str, anna: int
) -> None:
    config = SimulatorConfig(speed=SPEED, spot_symbols=("BTCUSDT", "ETHUSDT"))
    change(database_url, lambda c: watchlists.watch(c, anna, "ETHUSDT"))
    async with Exchange(config) as exchange:
        settings = settings_for(exchange, database_url, symbols_refresh_s=NO_REFRESH_S)
        async with streaming(settings, "BTCUSDT"):
            rows = await wait_for_rows(
                database_url, lambda rows: len(minutes_of(rows, "ETHUSDT")) >= 6
            )
        _, lost_us, _, unsure_us, *_ = minutes_of(rows, "ETHUSDT")
        damage(database_url, "ETHUSDT", lost_us, unsure_us)
        gap = {"start_us": lost_us, "end_us": lost_us + MINUTE_US, "cause": "connection lost"}
        change(database_url, lambda c: open_gap(c, symbol="ETHUSDT", **gap))  # type: ignore[arg-type]
        async with streaming(settings, "BTCUSDT"):
            rows = await wait_for_rows(
                database_url, lambda rows: is_verified(rows, "ETHUSDT", lost_us, unsure_us)
            )
            await until(lambda: open_gaps(database_url, "ETHUSDT") == 0)
        await assert_equal_to_the_exchange(exchange, rows, ["ETHUSDT"])


async def test_watchlists_can_be_switched_off(database_url: str, anna: int) -> None:
    config = SimulatorConfig(speed=SPEED, spot_symbols=("BTCUSDT", "ETHUSDT"))
    change(database_url, lambda c: watchlists.watch(c, anna, "ETHUSDT"))
    async with Exchange(config) as exchange:
        settings = settings_for(
            exchange, database_url, symbols_refresh_s=0.2, follow_watchlists=False
        )
        async with streaming(settings, "BTCUSDT") as streamer:
            await wait_for_rows(database_url, lambda rows: bool(minutes_of(rows, "BTCUSDT")))
            assert streamer.hub.symbols == ["BTCUSDT"]


async def test_symbol_watched_by_rest_reaches_the_websocket_within_seconds(
    database_url: str, anna: int
) -> None:
    config = SimulatorConfig(speed=SPEED, spot_symbols=("BTCUSDT", "ETHUSDT"))
    secret = new_token()
    listed = [
        Instrument(
            name, Market.SPOT, name[:3], "USDT", "TRADING", Decimal("0.01"), Decimal("0.00001")
        )
        for name in config.spot_symbols
    ]

    def prepare(connection: psycopg.Connection[Any]) -> None:
        accounts.add_token(connection, "anna", "test", secret_hash(secret), days=1)
        write_instruments(connection, listed, 1)

    change(database_url, prepare)
    header = {"authorization": f"Bearer {secret}"}
    async with Exchange(config) as exchange:
        settings = settings_for(
            exchange,
            database_url,
            symbols_refresh_s=NO_REFRESH_S,
            auth_required=True,
            api_port=0,
            grpc_port=0,
        )
        async with streaming(settings, "BTCUSDT") as streamer:
            await until(lambda: bool(streamer.telemetry.api_url))
            url = streamer.telemetry.api_url
            async with (
                connect_socket(
                    f"ws{url.removeprefix('http')}/api/v1/ws", additional_headers=header
                ) as socket,
                httpx.AsyncClient(base_url=url, headers=header, timeout=30) as client,
                asyncio.timeout(60),
            ):
                assert json.loads(await socket.recv()) == {"type": "watchlist", "symbols": []}
                answer = await client.put("/api/v1/watchlist/ETHUSDT")
                assert answer.json() == {"symbol": "ETHUSDT", "is_new": True, "is_streamed": False}
                told = [json.loads(await socket.recv()) for _ in range(2)]
                assert [one["type"] for one in told] == ["watchlist", "subscribed"]
                told.append(json.loads(await socket.recv()))
                if told[-1] == {"type": "streamed", "taken_up": ["ETHUSDT"], "dropped": []}:
                    told.append(
                        json.loads(await socket.recv())
                    )  # it was not when it was subscribed
                assert told[-1]["type"] == "price"
                assert [one["symbol"] for one in told[-1]["data"]] == ["ETHUSDT"]
                (one,) = (await client.get("/api/v1/watchlist")).json()["watchlist"]
                assert one["is_streamed"]
