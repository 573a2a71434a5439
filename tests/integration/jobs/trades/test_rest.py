"""REST stands in for files of trades that are missing or damaged, and ends in the same table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from structlog.testing import capture_logs

from include.config import Settings
from include.domain.candles import Candle
from include.domain.timeframes import DAY_US, to_us
from include.errors import PermanentError, TransientError
from include.jobs.klines.backfill import backfill
from include.jobs.trades import rest as trade_rest
from include.jobs.trades.dumps import day_of, load_trade_dump
from include.jobs.trades.pieces import TradeDumpCounts, TradeDumpPiece
from include.jobs.trades.planning import TradeDumpPlan, plan_trade_dumps
from include.store.candles.minutes import read_candles
from include.store.ledgers.files import find_dump_file
from simulator.dumps.faults import (
    CorruptZip,
    DropRows,
    DumpRule,
    MissingFile,
    ReissueFile,
    StaleChecksum,
)
from simulator.rest.faults import AddVoidRows, RefuseRequest, RestRule
from simulator.server import ExchangeThread

Oracle = Callable[[str, int, int], list[Candle]]
DAY = to_us(datetime(2026, 11, 17, tzinfo=UTC))
MIDDLE, LAST, TODAY = DAY + DAY_US, DAY + 2 * DAY_US, DAY + 3 * DAY_US
END = TODAY + DAY_US

CONTENT = (
    """
    SELECT symbol, open_time, open, high, low, close, volume, quote_volume, trade_count,
        taker_buy_volume, taker_buy_quote_volume, status, source, revision
    FROM market.candles_1m ORDER BY 1, 2
    """,
    """
    SELECT symbol, day, agg_trade_id, price, quantity, first_trade_id, last_trade_id, trade_time,
        is_buyer_maker
    FROM market.agg_trades ORDER BY symbol, agg_trade_id
    """,
    """
    SELECT symbol, day, trade_id, price, quantity, quote_quantity, trade_time, is_buyer_maker
    FROM market.trades ORDER BY symbol, trade_id
    """,
    "SELECT symbol, source, day, minutes FROM ops.coverage ORDER BY 1, 2, 3",
)


@pytest.fixture(autouse=True)
def _heal(exchange: ExchangeThread, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(trade_rest, "MAX_TRADES", 60)  # a day of several pages and blocks
    monkeypatch.setattr(trade_rest, "BLOCK_ROWS", 100)
    yield
    exchange.dump_faults.clear()
    exchange.rest_faults.clear()


def plan_of(settings: Settings, kind: str = "agg_trades", **options: Any) -> TradeDumpPlan:
    wanted = {"symbols": "COSUSDT", "market": "spot", "start": DAY, "end": TODAY, **options}
    return plan_trade_dumps(settings=settings, kind=kind, **wanted)


def load(settings: Settings, plan: TradeDumpPlan) -> TradeDumpCounts:
    counts = TradeDumpCounts()
    for piece in plan.pieces:
        counts += load_trade_dump(settings=settings, piece=piece)
    return counts


def content_of(connection: psycopg.Connection) -> list[object]:
    return [connection.execute(statement).fetchall() for statement in CONTENT]


def empty(connection: psycopg.Connection) -> None:
    connection.execute(
        "TRUNCATE market.candles_1m, market.agg_trades, market.trades, ops.coverage, "
        "ops.dump_files, ops.candle_changes"
    )


def path_of(kind: str) -> str:
    return f"data/spot/daily/{kind}/COSUSDT/COSUSDT-{kind}-2026-11-18.zip"


@pytest.mark.parametrize("keep_raw", [False, True])
@pytest.mark.parametrize(
    ("kind", "effect", "verdict"),
    [
        ("agg_trades", CorruptZip(), "wrong_checksum"),
        ("agg_trades", CorruptZip(checksum_fits=True), "corrupt"),
        ("agg_trades", StaleChecksum(), "wrong_checksum"),
        ("agg_trades", MissingFile(), "missing"),
        ("trades", CorruptZip(checksum_fits=True), "corrupt"),
        ("trades", MissingFile(), "missing"),
    ],
)
def test_day_from_rest_equals_the_day_from_its_file(
    settings: Settings, exchange: ExchangeThread, connection: psycopg.Connection, oracle: Oracle,
    kind: str, effect: Any, verdict: str, keep_raw: bool,
) -> None:  # fmt: skip
    load(settings, plan_of(settings, kind, keep_raw=keep_raw))
    undisturbed = content_of(connection)
    empty(connection)
    exchange.dump_faults.add(DumpRule(effect=effect, path="*18.zip"))

    plan = plan_of(settings, kind, keep_raw=keep_raw)
    told = [(piece.source, piece.why) for piece in plan.pieces]
    counts = load(settings, plan)

    published = ("dump_daily", "the day's file is published")
    at_rest = ("rest", "no file of the day is published")
    assert told == [published, at_rest if verdict == "missing" else published, published]
    assert (counts.files, counts.replaced, counts.unusable) == (2, 1, 0)
    assert counts.rest_pages > 6
    # as complete as by the file, its neighbours' ends proven by it among that
    assert content_of(connection) == undisturbed
    traded = [one.values for one in oracle("COSUSDT", DAY, TODAY) if one.trade_count]
    assert [one.values for one in read_candles(connection, "COSUSDT", DAY, TODAY)] == traded
    name = "aggTrades" if kind == "agg_trades" else kind
    entry = find_dump_file(connection, path_of(name))
    assert entry is not None
    assert (entry.verdict, entry.detail["replaced_by"], entry.detail["of"]) == (
        verdict, "rest", kind,
    )  # fmt: skip
    assert entry.rows == counts.trades - sum(
        find_dump_file(connection, path_of(name).replace("18.zip", day)).rows  # type: ignore[union-attr]
        for day in ("17.zip", "19.zip")
    )
    again = plan_of(settings, kind, keep_raw=keep_raw)
    assert (again.pieces, again.loaded) == ((), 3)


def test_file_published_after_its_day_came_from_rest_is_loaded_once(
    settings: Settings, exchange: ExchangeThread, connection: psycopg.Connection
) -> None:
    rule = exchange.dump_faults.add(
        DumpRule(effect=CorruptZip(checksum_fits=True), path=path_of("aggTrades"))
    )
    load(settings, plan_of(settings))
    before = content_of(connection)
    exchange.dump_faults.remove(rule)
    assert plan_of(settings).pieces == ()
    at_us = exchange.clock.now_us()
    exchange.dump_faults.add(DumpRule(effect=ReissueFile(at_us=at_us), path=path_of("aggTrades")))
    (piece,) = plan_of(settings).pieces
    assert load_trade_dump(settings=settings, piece=piece).files == 1
    assert content_of(connection) == before
    assert plan_of(settings).pieces == ()


def test_rows_that_were_not_stored_are_requested_again(
    settings: Settings, exchange: ExchangeThread, connection: psycopg.Connection
) -> None:
    exchange.dump_faults.add(DumpRule(effect=MissingFile(), path=path_of("aggTrades")))
    load(settings, plan_of(settings))
    _, middle, _ = plan_of(settings, keep_raw=True).pieces
    assert middle.source == "rest"
    counts = load_trade_dump(settings=settings, piece=middle)
    assert counts.raw_rows == counts.trades > 100
    assert load_trade_dump(settings=settings, piece=middle).raw_rows == 0


def test_truncated_day_is_detected_by_its_klines_and_completed(
    settings: Settings, exchange: ExchangeThread, connection: psycopg.Connection
) -> None:
    backfill(settings=settings, symbols="COSUSDT", market="spot", start=DAY, end=TODAY)
    load(settings, plan_of(settings, keep_raw=True))
    undisturbed = content_of(connection)
    connection.execute("TRUNCATE market.agg_trades")
    connection.execute("DELETE FROM ops.coverage WHERE source = 'trades'")
    connection.execute("DELETE FROM ops.dump_files WHERE kind = 'agg_trades'")
    exchange.dump_faults.add(DumpRule(effect=DropRows(rows=40), path=path_of("aggTrades")))
    counts = load(settings, plan_of(settings, keep_raw=True))
    assert (counts.files, counts.replaced, counts.unusable) == (2, 1, 0)
    assert content_of(connection) == undisturbed
    entry = find_dump_file(connection, path_of("aggTrades"))
    assert entry is not None
    assert (entry.verdict, entry.detail["is_cut"], entry.detail["replaced_by"]) == (
        "loaded", True, "rest",
    )  # fmt: skip
    assert plan_of(settings, keep_raw=True).pieces == ()


def test_void_rows_of_rest_are_skipped(
    settings: Settings, exchange: ExchangeThread, connection: psycopg.Connection
) -> None:
    load(settings, plan_of(settings, keep_raw=True))
    undisturbed = content_of(connection)
    empty(connection)
    exchange.dump_faults.add(DumpRule(effect=MissingFile(), path=path_of("aggTrades")))
    exchange.rest_faults.add(RestRule(effect=AddVoidRows(rows=5), endpoint="aggTrades"))
    counts = load(settings, plan_of(settings, keep_raw=True))
    assert (counts.replaced, counts.rejected) == (1, 0)
    assert content_of(connection) == undisturbed


def test_file_is_recorded_while_rest_is_unavailable_and_replaced_by_the_rerun(
    settings: Settings, exchange: ExchangeThread, connection: psycopg.Connection
) -> None:
    exchange.dump_faults.add(DumpRule(effect=CorruptZip(), path=path_of("aggTrades")))
    _, middle, _ = plan_of(settings).pieces
    exchange.rest_faults.add(
        RestRule(effect=RefuseRequest(status=429, retry_after_s=7), endpoint="aggTrades", times=1)
    )
    with pytest.raises(TransientError):
        load_trade_dump(settings=settings, piece=middle)
    entry = find_dump_file(connection, middle.path)
    assert entry is not None
    assert (entry.verdict, "replaced_by" in entry.detail) == ("wrong_checksum", False)
    connection.execute("UPDATE ops.weight_budget SET blocked_until = NULL")
    assert middle in plan_of(settings).pieces
    assert load_trade_dump(settings=settings, piece=middle).replaced == 1


def test_refused_replacement_is_logged_and_stores_nothing(
    settings: Settings, exchange: ExchangeThread, connection: psycopg.Connection
) -> None:
    exchange.dump_faults.add(DumpRule(effect=CorruptZip(), path=path_of("aggTrades")))
    exchange.rest_faults.add(RestRule(effect=RefuseRequest(status=403), endpoint="aggTrades"))
    _, middle, _ = plan_of(settings, keep_raw=True).pieces
    with capture_logs() as told:
        assert load_trade_dump(settings=settings, piece=middle) == TradeDumpCounts(unusable=1)
    assert "trades_not_replaced" in {one["event"] for one in told}
    entry = find_dump_file(connection, middle.path)
    assert entry is not None
    assert "403" in str(entry.detail["not_replaced"])
    assert content_of(connection) == [[], [], [], []]


def test_unfinished_days_and_days_before_the_first_trade_are_not_planned(
    settings: Settings,
) -> None:
    plan = plan_of(settings, start=DAY - 2 * DAY_US, end=END)
    assert [piece.source for piece in plan.pieces] == ["dump_daily"] * 3
    assert plan.unpublished == ("COSUSDT 2026-11-15", "COSUSDT 2026-11-16", "COSUSDT 2026-11-20")
    piece = day_of("COSUSDT", "agg_trades", TODAY, keep_raw=False)
    assert load_trade_dump(settings=settings, piece=piece) == TradeDumpCounts(unusable=1)


def test_usd_m_serves_only_the_last_two_days(
    settings: Settings, exchange: ExchangeThread, connection: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(trade_rest, "MAX_TRADES", 1_000)
    exchange.dump_faults.add(DumpRule(effect=MissingFile(), path="*ETHUSDT-*"))
    plan = plan_of(settings, symbols="ETHUSDT.P")
    assert [(one.label, one.source) for one in plan.pieces] == [
        ("ETHUSDT.P agg_trades 2026-11-19", "rest")
    ]
    assert plan.unpublished == ("ETHUSDT.P 2026-11-17", "ETHUSDT.P 2026-11-18")
    old_path = plan.pieces[0].path.replace("2026-11-19", "2026-11-17")
    piece = TradeDumpPiece("ETHUSDT.P", "x", old_path, "agg_trades")
    assert load_trade_dump(settings=settings, piece=piece) == TradeDumpCounts(unusable=1)
    entry = find_dump_file(connection, old_path)
    assert entry is not None
    assert "recent" in str(entry.detail["not_replaced"])


def test_trades_that_are_not_served_are_replaced_by_agg_trades(
    make_settings: Callable[..., Settings], settings: Settings
) -> None:
    public = make_settings(binance_rest_url="https://data-api.binance.vision")
    kinds = [
        trade_rest.served_kind(one, symbol, "trades", keep_raw=False)
        for one, symbol in [(settings, "COSUSDT"), (public, "COSUSDT"), (settings, "ETHUSDT.P")]
    ]
    assert kinds == ["trades", "agg_trades", "agg_trades"]
    for one, symbol in [(public, "COSUSDT"), (settings, "ETHUSDT.P")]:
        with pytest.raises(PermanentError, match="are not served by"):
            trade_rest.served_kind(one, symbol, "trades", keep_raw=True)
        assert trade_rest.served_kind(one, symbol, "agg_trades", keep_raw=True) == "agg_trades"


def test_agg_trades_in_place_of_trades_prove_no_file_edges(
    settings: Settings, exchange: ExchangeThread, connection: psycopg.Connection, oracle: Oracle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    exchange.dump_faults.add(DumpRule(effect=MissingFile(), path=path_of("trades")))
    monkeypatch.setattr(trade_rest, "PUBLIC_DATA_HOST", "127.0.0.1")
    counts = load(settings, plan_of(settings, "trades"))
    assert (counts.files, counts.replaced) == (2, 1)
    traded = [one.values for one in oracle("COSUSDT", MIDDLE, LAST) if one.trade_count]
    stored = read_candles(connection, "COSUSDT", MIDDLE, LAST)
    assert [one.values for one in stored] == traded
    found = connection.execute(
        "SELECT extract(day FROM open_time)::int, count(*) FROM market.candles_1m"
        " WHERE status = 'partial' GROUP BY 1 ORDER BY 1"
    ).fetchall()
    assert found == [(17, 2), (19, 2)]  # both ends of both files; REST proves its own


def test_weight_comes_from_the_shared_budget(
    settings: Settings, exchange: ExchangeThread, connection: psycopg.Connection
) -> None:
    exchange.dump_faults.add(DumpRule(effect=MissingFile(), path=path_of("aggTrades")))
    plan = plan_of(settings, start=MIDDLE, end=LAST)
    connection.execute(
        "UPDATE ops.weight_budget SET used = 0, window_start = '1999-01-01', blocked_until = NULL"
    )
    counts = load(settings, plan)
    used = connection.execute("SELECT sum(used) FROM ops.weight_budget").fetchone()
    assert used is not None
    assert used[0] >= 4 * counts.rest_pages > 0
