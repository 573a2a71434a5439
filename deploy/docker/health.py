"""Health checks of the containers: exit code 0 if healthy, otherwise 1 and a line with the reason.

``python -m deploy.docker.health streamer`` checks the streamer's /ready or, if that is disabled,
the age of the newest candle in the database. ``… http URL`` checks that a service answers.
``… airflow scheduler`` reads a component's status from Airflow's API; ``airflow jobs check`` would
take seconds of CPU.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import psycopg

from include.config import load_settings
from include.errors import CandelabraError, PermanentError, TransientError

TIMEOUT_S = 5.0

MAX_CANDLE_AGE_S = 180.0
"""Since the open time: 60 s until the minute ends, plus time for the kline or REST to verify it."""

AIRFLOW_COMPONENTS = ("metadatabase", "scheduler", "dag_processor", "triggerer")

NEWEST = """
SELECT least(
    (
        SELECT clock_timestamp() - max(open_time) FROM market.candles_1m
        WHERE symbol = ANY(%(names)s) AND open_time > now() - interval '1 hour'
    ),
    (
        SELECT clock_timestamp() - max(updated_at) FROM market.live_candles
        WHERE symbol = ANY(%(names)s) OR %(names)s = '{}'
    )
)
"""
"""Age of the newest candle. Without trades there is no live candle, but still one row each minute.
With symbol patterns the names are unknown here, so any live candle counts: among many symbols one
always trades."""


def check_candles(
    database_url: str, *, symbols: Sequence[str], max_age_s: float = MAX_CANDLE_AGE_S
) -> str:
    """Check that the database has a recent candle.

    Args:
        database_url: of the streamer's login.
        symbols: of this streamer, so that the candles of others do not count. Patterns are
            ignored; without any name, all symbols count.
        max_age_s: maximum age of the newest candle in seconds.

    Raises:
        TransientError: the database does not answer, or the newest candle is too old.
    """
    names = [name for name in symbols if not set(name) & set("*?[")]
    try:
        with psycopg.connect(
            database_url,
            connect_timeout=int(TIMEOUT_S),
            options=f"-c statement_timeout={int(TIMEOUT_S * 1000)}",
            application_name="candelabra-health",
        ) as connection:
            row = connection.execute(NEWEST, {"names": names}).fetchone()
    except psycopg.Error as error:
        raise TransientError(f"the database does not answer: {error}") from error
    age = row[0] if row else None
    if age is None:
        raise TransientError("no candle in the last hour")
    if age > timedelta(seconds=max_age_s):
        raise TransientError(
            f"the newest candle is {age.total_seconds():.0f} s old; the maximum is {max_age_s:g} s"
        )
    return f"newest candle {age.total_seconds():.1f} s"


def check_http(url: str) -> bytes:
    """Return the response body of a service, bypassing proxies.

    Raises:
        TransientError: no answer, or an error status.
        PermanentError: not an HTTP URL.
    """
    if not url.startswith(("http://", "https://")):
        raise PermanentError(f"{url!r} is not an http:// or https:// URL")
    opener = build_opener(ProxyHandler({}))
    try:
        with opener.open(Request(url), timeout=TIMEOUT_S) as answer:  # noqa: S310 - checked above
            return bytes(answer.read())
    except OSError as error:  # URLError and HTTPError are OSErrors
        raise TransientError(f"{url}: {error}") from error


def check_ready(url: str) -> str:
    """Check that a streamer is ready.

    Args:
        url: its base URL.

    Raises:
        TransientError: no answer, or not ready; the message contains the reasons.
    """
    try:
        check_http(f"{url}/ready")
    except TransientError as error:
        answer = error.__cause__
        if not isinstance(answer, HTTPError) or answer.code != 503:
            raise
        reasons = json.loads(answer.read())["reasons"]
        message = "; ".join(str(reason["message"]) for reason in reasons)
        raise TransientError(f"not ready: {message}") from None
    return "ready"


def check_airflow(api_url: str, part: str) -> str:
    """Check that an Airflow component has sent a recent heartbeat.

    Args:
        api_url: base URL of the API server.
        part: one of ``AIRFLOW_COMPONENTS``.

    Raises:
        TransientError: the API server does not answer, or the component is not healthy.
        PermanentError: the component is unknown.
    """
    if part not in AIRFLOW_COMPONENTS:
        raise PermanentError(f"{part!r} is not one of {', '.join(AIRFLOW_COMPONENTS)}")
    health = json.loads(check_http(f"{api_url}/api/v2/monitor/health"))
    status = (health.get(part) or {}).get("status")
    if status != "healthy":
        raise TransientError(f"Airflow's {part} is {status or 'unknown'}")
    return f"{part} healthy"


def _streamer(_: Sequence[str]) -> str:
    settings = load_settings()
    if settings.streamer_http_url:
        return check_ready(settings.streamer_http_url)
    return check_candles(settings.url_for("streamer"), symbols=settings.symbols)


def _http(arguments: Sequence[str]) -> str:
    return f"{arguments[0]} answered {len(check_http(arguments[0]))} bytes"


def _airflow(arguments: Sequence[str]) -> str:
    return check_airflow(os.environ.get("AIRFLOW_API_URL", "http://127.0.0.1:8080"), arguments[0])


CHECKS: Mapping[str, tuple[Callable[[Sequence[str]], str], int]] = {
    "streamer": (_streamer, 0),
    "http": (_http, 1),
    "airflow": (_airflow, 1),
}
"""Each check and its number of arguments."""


def main(arguments: Sequence[str]) -> int:
    """Run one check; exit code 2 for wrong arguments."""
    name, *rest = arguments or [""]
    check, count = CHECKS.get(name, (None, 0))
    if check is None or len(rest) != count:
        sys.stderr.write("usage: health streamer | http URL | airflow COMPONENT\n")
        return 2
    try:
        result = check(rest)
    except CandelabraError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{result}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
