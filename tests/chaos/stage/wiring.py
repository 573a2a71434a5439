"""Connect the parts of a run."""

from __future__ import annotations

from pathlib import Path

from include.config import Settings, load_settings
from simulator.server import ExchangeThread
from tests.chaos.scenario import WANTED, Scenario
from tests.chaos.stage.servers import Database

FACTOR = 10.0
"""By which waits between tries are shortened."""


def settings_of_jobs(exchange: ExchangeThread, database: Database) -> Settings:
    """Of ``repair_gaps``."""
    return load_settings(
        database_url=database.url, jobs_database_url=database.jobs_url, **_urls(exchange)
    )


def arguments(scenario: Scenario) -> list[str]:
    """Of the streamer's program."""
    names = WANTED[scenario.wanted]
    return [
        f"{FACTOR:g}",
        f"{scenario.speed:g}",
        str(scenario.streams_a_connection),
        str(0 if scenario.buffers is None else scenario.buffers[0]),
        "stream",
        "--symbols",
        ",".join(names),
        *(["--capture", ",".join(scenario.capture)] if scenario.capture else []),
    ]


def environment(
    exchange: ExchangeThread, database: Database, scenario: Scenario, home: Path
) -> dict[str, str]:
    """Of the streamer. Waits for the exchange's words are in its time, which runs faster here
    than threads are woken: they are given as much more of it.

    Args:
        home: for the spool of raw capture; two streamers share it.
    """
    authority = exchange.tls_ca_file
    return {
        **({} if authority is None else {"SSL_CERT_FILE": authority}),
        **{name.upper(): url for name, url in _urls(exchange).items()},
        "STREAMER_DATABASE_URL": database.streamer_url,
        "CANDELABRA_HOME": str(home),
        "STALE_STREAM_S": "1.5",
        "SYMBOLS_REFRESH_S": "0.5",
        "HTTP_TIMEOUT_S": "2",
        "FILL_LOOKBACK_MINUTES": str(scenario.lookback_minutes),
        "ROTATE_AFTER_S": f"{scenario.rotate_after_s:g}",
        "CLOSE_GRACE_SPOT_MS": "3000",
        "CLOSE_GRACE_UM_MS": "3000",
        "KLINE_TIMEOUT_MS": "20000",
        "BATCH_FLUSH_TIMEOUT_MS": "50",
        "CAPTURE_FLUSH_TIMEOUT_MS": "100",
        **({} if scenario.buffers is None else {"CAPTURE_BUFFER_ROWS": str(scenario.buffers[1])}),
        "STREAMER_HTTP_PORT": "0",
        "API_PORT": "0",
        "GRPC_PORT": "0",
        "LOG_FORMAT": "json",
    }


def _urls(exchange: ExchangeThread) -> dict[str, str]:
    return {
        "binance_ws_url": exchange.spot_ws_url,
        "binance_rest_url": exchange.spot_rest_url,
        "binance_um_ws_url": exchange.um_ws_url,
        "binance_cm_ws_url": exchange.cm_ws_url,
        "binance_um_rest_url": exchange.um_rest_url,
        "binance_cm_rest_url": exchange.cm_rest_url,
    }
