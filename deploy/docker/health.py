"""Health checks of the containers: exit code 0 when well, else 1 and a line that says what is not.

``python -m deploy.docker.health streamer`` asks the streamer whether it is ready or, where that is
not served, the database whether candles come; ``… http URL`` asks whether a service answers;
``… airflow scheduler`` what Airflow knows of a process of its own. ``airflow jobs check`` would
tell the same of the latter, at seconds of CPU each time.
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

OLDEST_CANDLE_S = 180.0
"""From a minute's beginning: 60 s until it ends, and time for the kline or REST to confirm it."""

AIRFLOW_PARTS = ("metadatabase", "scheduler", "dag_processor", "triggerer")

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
"""Age of the newest candle. Without trades there may be no live candle, but there is a row a
minute. Names that a pattern stands for are not known here: there any live candle counts, since
among so many symbols one always trades."""


def check_candles(
    database_url: str, *, symbols: Sequence[str], oldest_s: float = OLDEST_CANDLE_S
) -> str:
    """Ask the database whether candles of the last minutes are there.

    Args:
        database_url: of the streamer's login.
        symbols: of this streamer, so that another one's candles do not count. Beside names,
            patterns are left out of the question; where there is no name, any symbol will do.
        oldest_s: age, in seconds, from which a newest candle is too old.

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
        raise TransientError("no candle of the last hour")
    if age > timedelta(seconds=oldest_s):
        raise TransientError(
            f"the newest candle is {age.total_seconds():.0f} s old; at most {oldest_s:g} s are well"
        )
    return f"newest candle {age.total_seconds():.1f} s"


def check_http(url: str) -> bytes:
    """The answer of a service of ours, asked without a proxy.

    Raises:
        TransientError: it does not answer, or with an error.
        PermanentError: this is no URL of HTTP.
    """
    if not url.startswith(("http://", "https://")):
        raise PermanentError(f"{url!r} is no http:// URL")
    opener = build_opener(ProxyHandler({}))
    try:
        with opener.open(Request(url), timeout=TIMEOUT_S) as answer:  # noqa: S310 - seen above
            return bytes(answer.read())
    except OSError as error:  # URLError and HTTPError are OSErrors
        raise TransientError(f"{url}: {error}") from error


def check_ready(url: str) -> str:
    """Ask a streamer whether it is ready.

    Args:
        url: its base URL.

    Raises:
        TransientError: it does not answer, or is not ready; the message says why not.
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
    """Ask the API server whether one of Airflow's parts has shown a sign of life lately.

    Args:
        api_url: base URL of the API server.
        part: one of ``AIRFLOW_PARTS``.

    Raises:
        TransientError: the API server does not answer, or the part is not well.
        PermanentError: there is no such part.
    """
    if part not in AIRFLOW_PARTS:
        raise PermanentError(f"{part!r} is no part of Airflow: {', '.join(AIRFLOW_PARTS)}")
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
"""Each check with the number of its arguments."""


def main(arguments: Sequence[str]) -> int:
    """Run one check; 2 for a wrong call."""
    name, *rest = arguments or [""]
    check, count = CHECKS.get(name, (None, 0))
    if check is None or len(rest) != count:
        sys.stderr.write("usage: health streamer | http URL | airflow PART\n")
        return 2
    try:
        said = check(rest)
    except CandelabraError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{said}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
