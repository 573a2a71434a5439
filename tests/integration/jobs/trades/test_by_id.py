"""Trades are fetched by id, page by page; trades that the exchange does not serve are reported."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psycopg
import pytest

from include.config import Settings, load_settings
from include.domain.timeframes import DAY_US, MINUTE_US, to_us
from include.errors import PermanentError, TransientError
from include.jobs.trades import by_id as trades_by_id
from include.jobs.trades.by_id import (
    FetchCounts,
    RawGap,
    Tail,
    fetch_trades,
    fetch_trailing,
    record_raw_gaps,
)
from include.store.ledgers.gaps import claim_gaps
from include.store.postgres.pools import connect
from simulator.config import SimulatorConfig
from simulator.server import ExchangeThread


@pytest.fixture(scope="module")
def exchange() -> Iterator[ExchangeThread]:
    with ExchangeThread(
        SimulatorConfig(spot_symbols=("BTCUSDT", "ETHUSDT"), um_symbols=("BTCUSDT",))
    ) as one:
        yield one


@pytest.fixture
def settings(exchange: ExchangeThread, database_url: str) -> Settings:
    return load_settings(
        database_url=database_url,
        binance_rest_url=exchange.spot_rest_url,
        binance_um_rest_url=exchange.um_rest_url,
        binance_cm_rest_url=exchange.cm_rest_url,
    )


@pytest.fixture
def fetch(settings: Settings) -> Callable[..., FetchCounts]:
    def ask(dataset: str, symbol: str, first_id: int, last_id: int) -> FetchCounts:
        return fetch_trades(
            settings=settings, dataset=dataset, symbol=symbol, first_id=first_id, last_id=last_id
        )

    return ask


def recent_id(exchange: ExchangeThread, market: str, *, single: bool = False) -> int:
    """An id a few thousand before the newest."""

    base = (
        exchange.um_rest_url + "/fapi/v1" if market == "um" else exchange.spot_rest_url + "/api/v3"
    )
    method, key = ("trades", "id") if single else ("aggTrades", "a")
    rows = httpx.get(f"{base}/{method}", params={"symbol": "BTCUSDT", "limit": 1}).json()
    return int(rows[-1][key]) - 5_000


def served(
    url: str, from_id: int | None = None, *, symbol: str = "ETHUSDT"
) -> list[tuple[int, int]]:
    """Time (µs) and id of one trade: the newest, or that with an id."""
    wanted = {} if from_id is None else {"fromId": from_id}
    rows = httpx.get(
        url,
        params={"symbol": symbol, "limit": 1, **wanted},
        headers={"X-MBX-TIME-UNIT": "MICROSECOND"},
    ).json()
    return [(row["T"], row["a"]) for row in rows]


@pytest.mark.parametrize(
    ("dataset", "symbol", "id_column"),
    [
        ("agg_trades", "BTCUSDT", "agg_trade_id"),
        ("agg_trades", "BTCUSDT.P", "agg_trade_id"),
        ("trades", "BTCUSDT", "trade_id"),
    ],
)
def test_exactly_the_ids_of_a_range_are_fetched(
    exchange: ExchangeThread,
    fetch: Callable[..., FetchCounts],
    database_url: str,
    dataset: str,
    symbol: str,
    id_column: str,
) -> None:
    market = "um" if symbol.endswith(".P") else "spot"
    first_id = recent_id(exchange, market, single=dataset == "trades")
    counts = fetch(dataset, symbol, first_id, first_id + 1_499)
    first_us = counts.first_us
    assert counts == FetchCounts(pages=2, void=0, written=1_500, absent=0, first_us=first_us)
    assert fetch(dataset, symbol, first_id, first_id + 1_499).written == 0
    with psycopg.connect(database_url) as connection:
        oldest = connection.execute(
            psycopg.sql.SQL("SELECT min(trade_time) FROM market.{} WHERE symbol = %s").format(
                psycopg.sql.Identifier(dataset)
            ),
            (symbol,),
        ).fetchone()
        assert to_us(oldest[0]) == first_us
        rows = connection.execute(
            psycopg.sql.SQL("SELECT {} FROM market.{} WHERE symbol = %s ORDER BY 1").format(
                psycopg.sql.Identifier(id_column), psycopg.sql.Identifier(dataset)
            ),
            (symbol,),
        ).fetchall()
        weight = connection.execute("SELECT count(*) FROM ops.weight_budget").fetchone()
    assert [row[0] for row in rows] == list(range(first_id, first_id + 1_500))
    assert weight == (1,)


def test_ids_not_served_yet_are_a_transient_error(
    exchange: ExchangeThread, fetch: Callable[..., FetchCounts]
) -> None:
    newest = recent_id(exchange, "spot") + 5_000
    with pytest.raises(TransientError, match=f"last wanted {newest + 10**9}"):
        fetch("agg_trades", "BTCUSDT", newest + 10**8, newest + 10**9)


def test_fetch_that_fails_after_some_pages_says_where_to_continue(
    exchange: ExchangeThread, fetch: Callable[..., FetchCounts]
) -> None:
    newest = recent_id(exchange, "spot") + 5_000
    counts = fetch("agg_trades", "BTCUSDT", newest - 2_999, newest + 10**9)
    assert counts.pages >= 3
    assert counts.written >= 3_000
    assert counts.next_id == newest - 2_999 + counts.written
    assert counts.absent == 0


def test_ids_reused_by_another_instrument_are_refused(
    exchange: ExchangeThread, settings: Settings
) -> None:
    first_id = recent_id(exchange, "spot")
    with pytest.raises(PermanentError, match="another instrument"):
        fetch_trades(
            settings=settings, dataset="agg_trades", symbol="BTCUSDT", first_id=first_id,
            last_id=first_id + 9, until_us=exchange.clock.now_us() - 86_400_000_000,
        )  # fmt: skip


def test_all_trades_after_one_are_stored(
    exchange: ExchangeThread, settings: Settings, database_url: str
) -> None:
    exchange.faults.add({"kind": "delisting", "market": "spot", "symbols": "ETHUSDT", "at": "+0s"})
    base = f"{exchange.spot_rest_url}/api/v3/aggTrades"

    # The last trades are served as late as all others.
    served_us = exchange.clock.now_us() + exchange.config.rest_trade_lag_ms * 1_000
    time.sleep(exchange.clock.seconds_until(served_us + 1))
    ((last_us, last_id),) = served(base)
    last = last_id, last_us
    ((before_us, _),) = served(base, last_id - 1_200)

    def tail_of(after_id: int, after_us: int) -> Tail:
        return fetch_trailing(
            settings=settings, dataset="agg_trades", symbol="ETHUSDT", after_id=after_id,
            after_us=after_us,
        )  # fmt: skip

    tail = tail_of(last[0] - 1_200, before_us)
    assert (tail.last_id, tail.last_us) == last
    assert (tail.counts.pages, tail.counts.written) == (2, 1_200)
    with psycopg.connect(database_url) as connection:
        stored = connection.execute(
            "SELECT min(agg_trade_id), max(agg_trade_id), count(*) FROM market.agg_trades"
        ).fetchone()
    assert stored == (last[0] - 1_199, last[0], 1_200)
    assert tail_of(*last) == Tail(*last, FetchCounts(pages=1, void=0, written=0))
    # Where that trade is not the exchange's any more, its silence proves nothing.
    with pytest.raises(PermanentError, match="another instrument"):
        tail_of(last[0], last[1] - DAY_US)
    with pytest.raises(TransientError, match="does not serve id"):
        tail_of(last[0] + 1, last[1])


def test_unserved_datasets_are_refused_without_a_request(
    fetch: Callable[..., FetchCounts], database_url: str
) -> None:
    with pytest.raises(PermanentError, match="no past book_tickers"):
        fetch("book_tickers", "BTCUSDT", 1, 2)
    with pytest.raises(PermanentError, match="skip by design"):
        fetch("trades", "BTCUSDT.P", 1, 2)
    with pytest.raises(PermanentError, match=r"BINANCE_REST_URL=https://api\.binance\.com"):
        fetch_trades(
            settings=load_settings(database_url=database_url),
            dataset="trades",
            symbol="BTCUSDT",
            first_id=1,
            last_id=2,
        )


def test_losses_are_recorded_as_gaps_that_no_repair_claims(database_url: str) -> None:
    gap = RawGap("book_tickers", "A", 90_000_000, 121_000_000, "spool full", {"rows": 3})
    later = RawGap("book_tickers", "A", 119_000_000, 120_500_000, "cut")
    more = RawGap("book_tickers", "A", 100_000_000, 121_000_000, "spool full", {"rows": 4})
    record_raw_gaps(database_url=database_url, gaps=[gap, gap, later, more])
    with connect(database_url, application_name="test") as connection:
        rows = connection.execute(
            "SELECT dataset, symbol, from_time, to_time, cause, detail FROM ops.gaps"
        ).fetchall()
        assert claim_gaps(connection, worker="one") == []
    ((dataset, symbol, start, end, cause, detail),) = rows
    assert (dataset, symbol, cause) == ("book_tickers", "A", "spool full")
    assert detail == {
        "rows": 7,
        "1970-01-01T00:01:30+00:00/1970-01-01T00:02:01+00:00": 3,
        "1970-01-01T00:01:40+00:00/1970-01-01T00:02:01+00:00": 4,
        "1970-01-01T00:01:59+00:00/1970-01-01T00:02:00.500000+00:00": None,
    }
    assert (to_us(start), to_us(end)) == (MINUTE_US, 3 * MINUTE_US)


def test_connection_lost_before_its_transaction_is_a_transient_error(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a server that restarts: who writes losses waits, and does not end."""

    def connect_and_lose(url: str, *, application_name: str) -> psycopg.Connection[Any]:
        lost = connect(url, application_name=application_name)
        with connect(url, application_name="test") as other:
            other.execute("SELECT pg_terminate_backend(%s, 10000)", (lost.info.backend_pid,))
        return lost

    monkeypatch.setattr(trades_by_id, "connect", connect_and_lose)
    with pytest.raises(TransientError):
        record_raw_gaps(database_url=database_url, gaps=[RawGap("trades", "A", 1, 2, "cut")])


def test_void_row_at_the_end_of_a_page_does_not_hide_its_trade(
    exchange: ExchangeThread, fetch: Callable[..., FetchCounts]
) -> None:
    """As of a server that lags: it has the void row of an id, and not yet the true one."""
    number = recent_id(exchange, "spot")
    told = {"market": "spot", "endpoints": ["aggTrades"], "symbols": ["BTCUSDT"], "times": 1}
    exchange.faults.add(
        [
            {"kind": "rest_void", "at": "+0s", "duration_s": 60, "rows": 1, **told},
            {"kind": "rest_stale", "at": "+0s", "duration_s": 60, "rows": 2, **told},
        ]
    )
    with pytest.raises(TransientError, match=f"none from id {number} on yet"):
        fetch("agg_trades", "BTCUSDT", number, number)
    assert fetch("agg_trades", "BTCUSDT", number, number).written == 1


def test_void_row_at_the_end_of_the_newest_trades_does_not_hide_its_trade(
    exchange: ExchangeThread, settings: Settings, database_url: str
) -> None:
    """As above: the page has the void row of the next id, and not yet the true one."""
    number = recent_id(exchange, "spot")
    base = f"{exchange.spot_rest_url}/api/v3/aggTrades"
    ((time_us, _),) = served(base, number, symbol="BTCUSDT")
    told = {"market": "spot", "endpoints": ["aggTrades"], "symbols": ["BTCUSDT"], "times": 1}

    def tail_after(*, rows: int | None = None) -> Tail:
        """Number of rows of each page, alternately void and valid; None for all valid ones."""
        if rows is not None:
            exchange.faults.add(
                [
                    {"kind": "rest_void", "at": "+0s", "duration_s": 60, "rows": 500, **told},
                    {"kind": "rest_stale", "at": "+0s", "duration_s": 60, "rows": 1_000 - rows}
                    | told,
                ]
            )
        return fetch_trailing(
            settings=settings, dataset="agg_trades", symbol="BTCUSDT", after_id=number,
            after_us=time_us,
        )  # fmt: skip

    with pytest.raises(TransientError, match=f"does not serve id {number}, "):
        tail_after(rows=1)
    assert tail_after(rows=3).last_id == number
    last_id = tail_after().last_id
    assert last_id > number + 4_000
    with psycopg.connect(database_url) as connection:
        stored = connection.execute(
            "SELECT max(agg_trade_id), count(*) FROM market.agg_trades WHERE agg_trade_id > %s",
            (number,),
        ).fetchone()
    assert stored == (last_id, last_id - number)


def test_void_rows_do_not_displace_real_ones(
    exchange: ExchangeThread, fetch: Callable[..., FetchCounts]
) -> None:
    first_id = recent_id(exchange, "spot") + 1_600
    exchange.faults.add(
        {
            "kind": "rest_void", "market": "spot", "at": "+0s", "duration_s": 60, "rows": 3,
            "endpoints": ["aggTrades"], "symbols": ["BTCUSDT"], "times": 1,
        }
    )  # fmt: skip
    counts = fetch("agg_trades", "BTCUSDT", first_id, first_id + 1)
    assert (counts.pages, counts.void > 0, counts.written, counts.absent) == (1, True, 2, 0)
