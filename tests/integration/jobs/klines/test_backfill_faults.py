"""Failures of the dump site or REST are recorded, waited out or replaced."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
from structlog.testing import capture_logs

from include.backoff import Backoff
from include.binance.rest import client as rest
from include.config import Settings
from include.domain.candles import Candle
from include.domain.timeframes import DAY_US, MINUTE_US, to_us
from include.errors import PermanentError, RateLimitedError, TransientError
from include.jobs.instruments import sync_instruments
from include.jobs.klines.backfill import backfill, load_dump_piece, load_rest_piece, plan_backfill
from include.jobs.klines.pieces import DumpPiece, RestPiece
from include.jobs.klines.repair import repair_gaps, repair_minutes
from include.store.candles.minutes import missing_minutes, read_candles
from include.store.ledgers.files import find_dump_file, read_outages
from include.store.ledgers.gaps import open_gap
from simulator.server import ExchangeThread
from tests.integration.jobs.faulty_host import Change, FaultyHost

Oracle = Callable[[str, int, int], list[Candle]]

DAY = to_us(datetime(2026, 11, 18, tzinfo=UTC))
FOLDER = "data/spot/daily/klines/COSUSDT/1m/"
NAME = "COSUSDT-1m-2026-11-18.zip"
PIECE = DumpPiece("COSUSDT", "COSUSDT 2026-11-18", FOLDER + NAME, "dump_daily", DAY, DAY + DAY_US)


def values(candles: list[Candle]) -> list[tuple[object, ...]]:
    return [(one.open_time_us, *one.values) for one in candles]


def replaced(
    answer: httpx.Response, body: bytes, status: int = 200, **headers: str
) -> httpx.Response:
    kept = {
        name: value
        for name, value in answer.headers.items()
        if name not in ("content-encoding", "content-length")
    }
    return httpx.Response(status, headers={**kept, **headers}, content=body)


def with_csv(change: Callable[[list[str]], list[str]]) -> tuple[Change, Change]:
    """Changes of a dump's lines, and of its checksum to fit."""
    sums: list[str] = []

    def new_zip(answer: httpx.Response) -> httpx.Response:
        if answer.content[:2] != b"PK":
            return answer
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            name = archive.namelist()[0]
            lines = archive.read(name).decode().splitlines()
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            # the same bytes each time
            archive.writestr(zipfile.ZipInfo(name), "\n".join(change(lines)) + "\n")
        sums[:] = [hashlib.sha256(packed.getvalue()).hexdigest()]
        return replaced(answer, packed.getvalue())

    def new_sum(answer: httpx.Response) -> httpx.Response:
        original = httpx.get(str(answer.url).removesuffix(".CHECKSUM"), trust_env=False)
        new_zip(original)
        return replaced(answer, f"{sums[0]}  {NAME}".encode())

    return new_zip, new_sum


def assert_replaced_by_rest(
    connection: psycopg.Connection, oracle: Oracle, verdict: str, *, rejected: int = 0
) -> None:
    stored = read_candles(connection, "COSUSDT", DAY, DAY + DAY_US)
    assert values(stored) == values(oracle("COSUSDT", DAY, DAY + DAY_US))
    file = find_dump_file(connection, PIECE.path)
    assert file is not None
    assert (file.verdict, file.rejected) == (verdict, rejected)
    sources = connection.execute("SELECT DISTINCT source FROM market.candles_1m").fetchall()
    assert sources == [("rest",)]


def test_file_with_a_wrong_checksum_is_recorded_and_replaced_by_rest(
    through_host: Settings, host: FaultyHost, connection: psycopg.Connection, oracle: Oracle
) -> None:
    host.changes[".CHECKSUM"] = lambda answer: replaced(answer, f"{'0' * 64}  {NAME}".encode())
    counts = load_dump_piece(settings=through_host, piece=PIECE)
    assert (counts.dumps, counts.replaced_dumps, counts.inserted) == (0, 1, 1440)
    assert_replaced_by_rest(connection, oracle, "wrong_checksum")
    file = find_dump_file(connection, PIECE.path)
    assert file is not None
    assert file.checksum in str(file.detail["error"])
    assert "0" * 64 in str(file.detail["error"])


def test_damaged_archive_with_a_matching_checksum_is_recorded_and_replaced_by_rest(
    through_host: Settings, host: FaultyHost, connection: psycopg.Connection, oracle: Oracle
) -> None:
    def damage(answer: httpx.Response) -> httpx.Response:
        body = bytearray(answer.content)
        if body[:2] == b"PK":
            body[len(body) // 2] ^= 0xFF
            return replaced(answer, bytes(body))
        return answer

    def fit(answer: httpx.Response) -> httpx.Response:
        original = httpx.get(str(answer.url).removesuffix(".CHECKSUM"), trust_env=False)
        digest = hashlib.sha256(damage(original).content).hexdigest()
        return replaced(answer, f"{digest}  {NAME}".encode())

    host.changes[NAME] = damage
    host.changes[f"{NAME}.CHECKSUM"] = fit
    load_dump_piece(settings=through_host, piece=PIECE)
    assert_replaced_by_rest(connection, oracle, "corrupt")


def test_missing_file_is_recorded_and_replaced_by_rest(
    through_host: Settings, host: FaultyHost, connection: psycopg.Connection, oracle: Oracle
) -> None:
    host.changes[NAME] = lambda answer: replaced(answer, b"", 404)
    load_dump_piece(settings=through_host, piece=PIECE)
    assert_replaced_by_rest(connection, oracle, "missing")


def test_bad_rows_of_a_dump_are_recorded_with_their_lines_and_come_from_rest(
    through_host: Settings, host: FaultyHost, connection: psycopg.Connection, oracle: Oracle
) -> None:
    def spoil(lines: list[str]) -> list[str]:
        fields = lines[4].split(",")
        fields[2], fields[3] = "0.00000001", fields[2]
        return [*lines[:4], ",".join(fields), lines[5][:40], *lines[6:]]

    new_zip, new_sum = with_csv(spoil)
    host.changes[NAME] = new_zip
    host.changes[f"{NAME}.CHECKSUM"] = new_sum
    counts = load_dump_piece(settings=through_host, piece=PIECE)
    assert (counts.dumps, counts.rejected, counts.inserted, counts.rest_pages) == (1, 2, 1440, 1)
    stored = read_candles(connection, "COSUSDT", DAY, DAY + DAY_US)
    assert values(stored) == values(oracle("COSUSDT", DAY, DAY + DAY_US))
    rows = connection.execute(
        "SELECT line, reason, file FROM ops.rejected_rows ORDER BY 1"
    ).fetchall()
    assert [row[:2] for row in rows] == [
        (5, "high is below another price"),
        (6, "4 columns, expected 12 (half a line?)"),
    ]
    assert {row[2] for row in rows} == {PIECE.path}
    sources = connection.execute(
        "SELECT source, count(*) FROM market.candles_1m GROUP BY 1 ORDER BY 1"
    ).fetchall()
    assert sources == [("dump_daily", 1438), ("rest", 2)]


def test_reissued_file_is_noticed_and_its_values_win(
    through_host: Settings, host: FaultyHost, connection: psycopg.Connection
) -> None:
    load_dump_piece(settings=through_host, piece=PIECE)
    arguments = {
        "settings": through_host, "symbols": "COSUSDT", "market": "spot",
        "start": DAY, "end": DAY + DAY_US,
    }  # fmt: skip
    assert plan_backfill(**arguments).pieces == ()

    def busier(lines: list[str]) -> list[str]:
        fields = lines[0].split(",")
        fields[8] = str(int(fields[8]) + 1)
        return [",".join(fields), *lines[1:]]

    new_zip, new_sum = with_csv(busier)

    def dated(answer: httpx.Response) -> httpx.Response:
        date = {"last-modified": "Thu, 19 Nov 2026 09:00:00 GMT"}
        changed = new_zip(answer)
        return answer if changed is answer else replaced(changed, changed.content, **date)

    host.changes[NAME] = dated
    host.changes[f"{NAME}.CHECKSUM"] = new_sum
    host.changes["marker="] = lambda answer: replaced(
        answer, answer.content.replace(b"2026-11-19T00:00:00.000Z", b"2026-11-19T09:00:00.000Z")
    )
    plan = plan_backfill(**arguments)
    assert [piece.path for piece in plan.dumps] == [PIECE.path]
    counts = load_dump_piece(settings=through_host, piece=plan.dumps[0])
    assert (counts.changed, counts.discrepancies, counts.inserted) == (1, 1, 0)
    states = connection.execute("SELECT count(*) FROM ops.dump_files").fetchone()
    assert states == (2,)
    assert plan_backfill(**arguments).pieces == ()


def without_rows(first_us: int, last_us: int) -> Change:
    """Remove klines from REST's answers."""

    def change(answer: httpx.Response) -> httpx.Response:
        rows = json.loads(answer.content)
        kept = [row for row in rows if not first_us <= row[0] < last_us]
        return replaced(answer, json.dumps(kept).encode())

    return change


def test_minutes_missing_at_the_exchange_become_an_outage(
    through_host: Settings, host: FaultyHost, connection: psycopg.Connection
) -> None:
    start, end = DAY + 600 * MINUTE_US, DAY + 660 * MINUTE_US
    host.changes["/klines?"] = without_rows(start, end)
    piece = RestPiece("COSUSDT", "hour", start - 30 * MINUTE_US, end + 30 * MINUTE_US)
    counts = load_rest_piece(settings=through_host, piece=piece)
    assert (counts.inserted, counts.outage_minutes, counts.pending_minutes) == (60, 60, 0)
    outages = read_outages(connection, "COSUSDT", DAY, DAY + DAY_US)
    assert [(one[0], one[1]) for one in outages] == [(start, end)]
    assert missing_minutes(connection, "COSUSDT", piece.start_us, piece.end_us) == []


def test_outage_over_the_whole_range_differs_from_a_time_before_the_listing(
    through_host: Settings, host: FaultyHost, connection: psycopg.Connection
) -> None:
    start, end = DAY + 600 * MINUTE_US, DAY + 660 * MINUTE_US
    host.changes["/klines?"] = without_rows(start, end)
    outage = load_rest_piece(settings=through_host, piece=RestPiece("COSUSDT", "x", start, end))
    assert (outage.outage_minutes, outage.unlisted_minutes) == (60, 0)
    before = DAY - 30 * DAY_US
    early = load_rest_piece(
        settings=through_host, piece=RestPiece("COSUSDT", "x", before, before + 60 * MINUTE_US)
    )
    assert (early.outage_minutes, early.unlisted_minutes) == (0, 60)
    assert len(read_outages(connection, "COSUSDT", before, DAY + DAY_US)) == 1


def test_minutes_that_are_not_final_are_a_transient_error(
    settings: Settings, exchange: ExchangeThread, connection: psycopg.Connection
) -> None:
    now_us = exchange.clock.now_us()
    end_us = now_us - now_us % MINUTE_US + MINUTE_US
    with pytest.raises(TransientError, match="30 s after its end"):
        repair_minutes(
            settings=settings, symbol="BTCUSDT", start_us=end_us - 10 * MINUTE_US, end_us=end_us
        )
    stored = read_candles(connection, "BTCUSDT", end_us - 10 * MINUTE_US, end_us)
    assert 7 <= len(stored) <= 9


def open_gaps(connection: psycopg.Connection) -> list[tuple[str, dict[str, str]]]:
    return connection.execute(
        "SELECT symbol, detail FROM ops.gaps WHERE repaired_at IS NULL ORDER BY id"
    ).fetchall()


def test_streamer_repairs_with_its_own_rights(
    settings: Settings, connection: psycopg.Connection
) -> None:
    url = settings.url_for("streamer")
    with psycopg.connect(url) as as_streamer:
        assert as_streamer.execute("SELECT current_user").fetchone() == ("candelabra_streamer",)
    end = DAY + 30 * MINUTE_US
    counts = repair_minutes(
        settings=settings, database_url=url, symbol="COSUSDT", start_us=DAY, end_us=end
    )
    assert counts.inserted == 30
    with psycopg.connect(url) as as_streamer:
        open_gap(as_streamer, symbol="COSUSDT", start_us=DAY, end_us=end, cause="cut")
    assert [symbol for symbol, _ in open_gaps(connection)] == ["COSUSDT"]


def test_gap_is_repaired_and_closed_and_one_of_an_unknown_symbol_released(
    settings: Settings, connection: psycopg.Connection, oracle: Oracle
) -> None:
    end = DAY + 90 * MINUTE_US
    open_gap(connection, symbol="COSUSDT", start_us=DAY, end_us=end, cause="cut")
    open_gap(connection, symbol="NOPEUSDT", start_us=DAY, end_us=end, cause="cut")
    with capture_logs() as told:
        summary = repair_gaps(settings=settings, worker="test", older_than_s=0)
    assert (summary.repaired, summary.left, summary.counts.inserted) == (1, 1, 90)
    (done,) = [one for one in told if one["event"] == "gaps_repaired"]
    assert (done["repaired"], done["left"], done["inserted"]) == (1, 1, 90)
    assert values(read_candles(connection, "COSUSDT", DAY, end)) == values(
        oracle("COSUSDT", DAY, end)
    )
    ((symbol, detail),) = open_gaps(connection)
    assert symbol == "NOPEUSDT"
    assert "NOPEUSDT" in detail["error"]


def test_429_blocks_all_processes_until_retry_after(
    through_host: Settings, host: FaultyHost, connection: psycopg.Connection
) -> None:
    host.changes["/klines?"] = lambda answer: replaced(
        answer, b'{"code":-1003,"msg":"Too much request weight used"}', 429, **{"retry-after": "37"}
    )
    piece = RestPiece("COSUSDT", "x", DAY, DAY + 60 * MINUTE_US)
    with pytest.raises(RateLimitedError) as told:
        load_rest_piece(settings=through_host, piece=piece)
    assert told.value.retry_after_s == 37
    asked = len(host.asked)
    name = urlsplit(host.url).netloc
    wait_ms, granted = connection.execute(
        "SELECT wait_ms, granted FROM ops.acquire_weight(%s, 1)", (name,)
    ).fetchone()
    assert not granted
    assert 30_000 < wait_ms <= 37_000
    assert len(host.asked) == asked


def test_backfill_waits_out_a_short_429(
    through_host: Settings, host: FaultyHost, connection: psycopg.Connection, oracle: Oracle
) -> None:
    refusals = iter([True])

    def once(answer: httpx.Response) -> httpx.Response:
        if (
            "startTime" in str(answer.url)
            and "limit=61" in str(answer.url)  # the hour, and the minute after it
            and next(refusals, False)
        ):
            return replaced(answer, b'{"code":-1003,"msg":"slow"}', 429, **{"retry-after": "1"})
        return answer

    host.changes["/klines?"] = once
    end = DAY + 60 * MINUTE_US
    summary = backfill(settings=through_host, symbols="COSUSDT", market="spot", start=DAY, end=end)
    assert next(refusals, None) is None
    assert summary.failed == ()
    assert values(read_candles(connection, "COSUSDT", DAY, end)) == values(
        oracle("COSUSDT", DAY, end)
    )


def test_everything_comes_from_rest_without_the_dump_site(
    through_host: Settings, host: FaultyHost, connection: psycopg.Connection, oracle: Oracle
) -> None:
    host.changes["marker="] = lambda answer: replaced(answer, b"", 404)
    end = DAY + DAY_US
    plan = plan_backfill(
        settings=through_host, symbols="COSUSDT", market="spot", start=DAY, end=end
    )
    assert plan.dumps == ()
    assert "no dumps" in plan.notes[0]
    assert sum(piece.end_us - piece.start_us for piece in plan.rest) == DAY_US


def test_dumps_and_other_symbols_are_planned_if_rest_fails_for_one(
    through_host: Settings, host: FaultyHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest, "BACKOFF", Backoff(first_s=0.01, max_s=0.02, min_s=0.01))
    host.changes["/klines?symbol=COSUSDT"] = lambda answer: replaced(answer, b"", 503)
    wanted: dict[str, Any] = {
        "settings": through_host,
        "symbols": "COSUSDT,BTCUSDT",
        "market": "spot",
        "start": DAY,
        "end": DAY + DAY_US + 60 * MINUTE_US,
    }
    with pytest.raises(TransientError, match="503"):
        plan_backfill(**wanted)
    plan = plan_backfill(**wanted, in_part=True)
    minutes = [piece.minutes for piece in plan.dumps if piece.symbol == "COSUSDT"]
    assert minutes == [1440, 60]
    assert {piece.symbol for piece in plan.rest} <= {"BTCUSDT"}
    assert sum(piece.end_us - piece.start_us for piece in plan.pieces if piece.symbol == "BTCUSDT")
    (reason,) = plan.unplanned
    assert "COSUSDT: only its dump files are planned, since" in reason


def test_registry_stores_what_the_exchange_lists(
    settings: Settings, connection: psycopg.Connection
) -> None:
    counts = sync_instruments(settings=settings)
    assert counts.listed == {"spot": 4, "um": 1, "cm": 6}
    rows = connection.execute(
        "SELECT symbol, quote_volume_is_exact FROM market.instruments WHERE market <> 'cm'"
    ).fetchall()
    assert dict(rows) == {
        "BIFIUSDT": True, "BTCUSDT": True, "COSUSDT": True, "ETHBTC": False, "ETHUSDT.P": True,
    }  # fmt: skip
    inverse = connection.execute(
        "SELECT bool_or(quote_volume_is_exact), bool_and(contract_size > 0)"
        " FROM market.instruments WHERE market = 'cm'"
    ).fetchone()
    assert inverse == (False, True)


def test_blocked_region_is_named_in_the_error(through_host: Settings, host: FaultyHost) -> None:
    host.changes["exchangeInfo"] = lambda answer: replaced(
        answer, b'{"code":0,"msg":"Service unavailable from a restricted location"}', 451
    )
    with pytest.raises(PermanentError, match=r"does not serve this region.*HTTPS_PROXY"):
        sync_instruments(settings=through_host, markets=["spot"])
