"""Files of users: good rows are loaded, bad ones kept, and the exchange outranks them."""

from __future__ import annotations

import csv
import gzip
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import httpx
import psycopg
import pytest

from include.config import Settings
from include.domain.candles import Candle, CandleCandidate, Source, Status
from include.domain.timeframes import DAY_US, MINUTE_US, to_us
from include.errors import PermanentError, RejectedInputError
from include.jobs.files.imports import HOPELESS_ROWS, import_file
from include.jobs.klines.repair import repair_minutes
from include.store.candles.merging import merge_candidates
from include.store.candles.minutes import read_candles
from simulator.server import ExchangeThread

Oracle = Callable[[str, int, int], list[Candle]]
DAY = to_us(datetime(2026, 11, 18, tzinfo=UTC))


def values(candles: list[Candle]) -> list[tuple[object, ...]]:
    return [(one.open_time_us, *one.values) for one in candles]


@pytest.fixture
def dump(exchange: ExchangeThread, tmp_path: Path) -> Callable[[str, str], Path]:
    """Fetches a dump of 2026-11-18 as a user has it on disk."""

    def fetch(symbol: str, kind: str) -> Path:
        folder = f"klines/{symbol}/1m" if kind == "1m" else f"{kind}/{symbol}"
        name = f"{symbol}-{kind}-2026-11-18.zip"
        answer = httpx.get(
            f"{exchange.dump_url}/data/spot/daily/{folder}/{name}", trust_env=False, timeout=30
        )
        path = tmp_path / name
        path.write_bytes(answer.raise_for_status().content)
        return path

    return fetch


def lines_of(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.read(archive.namelist()[0]).decode().splitlines()


def test_user_klines_are_unconfirmed_and_a_second_import_changes_nothing(
    settings: Settings, connection: psycopg.Connection, oracle: Oracle,
    dump: Callable[[str, str], Path],
) -> None:  # fmt: skip
    path = dump("COSUSDT", "1m")
    first = import_file(settings=settings, path=path)
    assert (first.symbol, first.rows, first.rejected, first.merged.inserted) == (
        "COSUSDT", 1440, 0, 1440,
    )  # fmt: skip
    assert values(read_candles(connection, "COSUSDT", DAY, DAY + DAY_US)) == values(
        oracle("COSUSDT", DAY, DAY + DAY_US)
    )
    kinds = connection.execute("SELECT DISTINCT status, source FROM market.candles_1m").fetchall()
    assert kinds == [("unconfirmed", "file")]
    second = import_file(settings=settings, path=path)
    assert (second.merged.inserted, second.merged.changed, second.merged.unchanged) == (0, 0, 1440)
    assert first.quarantine is None


@pytest.mark.parametrize("symbol", ["COSUSDT", "ETHBTC"])
def test_trades_give_the_exchanges_candles_with_rounded_quotes(
    settings: Settings, connection: psycopg.Connection, oracle: Oracle,
    dump: Callable[[str, str], Path], symbol: str,
) -> None:  # fmt: skip
    summary = import_file(settings=settings, path=dump(symbol, "trades"))
    theirs = {one.open_time_us: one for one in oracle(symbol, DAY, DAY + DAY_US)}
    whole = {
        row[0]
        for row in connection.execute(
            "SELECT (extract(epoch FROM open_time) * 1000000)::bigint FROM market.candles_1m "
            "WHERE status = 'unconfirmed'"
        )
    }
    stored = [
        one
        for one in read_candles(connection, symbol, DAY, DAY + DAY_US)
        if one.open_time_us in whole
    ]
    assert summary.partial == 2
    assert len(stored) == sum(one.trade_count > 0 for one in theirs.values()) - 2
    assert values(stored) == values([theirs[one.open_time_us] for one in stored])


def test_bad_rows_are_recorded_and_quarantined_and_the_rest_loaded(
    settings: Settings, connection: psycopg.Connection, dump: Callable[[str, str], Path],
    tmp_path: Path,
) -> None:  # fmt: skip
    lines = lines_of(dump("COSUSDT", "1m"))
    lines[9] = lines[9][:30]
    lines[20] = lines[20].replace(",", ",x", 1)
    path = tmp_path / "COSUSDT-1m-2026-11-18.csv.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    for _ in range(2):
        summary = import_file(settings=settings, path=path)
        assert (summary.rows, summary.rejected) == (1438, 2)
    assert summary.reasons == {"3 columns, expected 12 (half a line?)": 1, "open is no number": 1}
    assert summary.quarantine is not None
    with Path(summary.quarantine).open(newline="") as file:
        beside = list(csv.reader(file))
    table = connection.execute(
        "SELECT line, reason, raw FROM ops.rejected_rows WHERE file = %s ORDER BY line",
        (f"COSUSDT/{path.name}",),
    ).fetchall()
    assert [row[0] for row in table] == [10, 21]
    assert beside == [["line", "reason", "raw"], *([str(line), *rest] for line, *rest in table)]
    verdict = connection.execute("SELECT verdict, rows, rejected FROM ops.dump_files").fetchall()
    assert verdict == [("imported", 1438, 2)]


def test_corrected_rows_leave_the_rejected_ones(
    settings: Settings, connection: psycopg.Connection, write: Callable[[str, str], Path]
) -> None:
    other = import_file(settings=settings, path=write("XYZ-1m-2026-11-18.csv", f"{row(0)}\n1,2"))
    first = import_file(
        settings=settings, path=write("ABC-1m-2026-11-18.csv", f"{row(0)}\n{row(1)[:20]}\n1,2")
    )
    assert (other.rejected, first.rejected) == (1, 2)
    mended = import_file(
        settings=settings, path=write("ABC-1m-2026-11-18.csv", f"{row(0)}\n{row(1)}\n1,2")
    )
    assert (mended.rows, mended.rejected) == (2, 1)
    kept = connection.execute("SELECT file, line FROM ops.rejected_rows ORDER BY 1, 2").fetchall()
    assert kept == [("ABC/ABC-1m-2026-11-18.csv", 3), ("XYZ/XYZ-1m-2026-11-18.csv", 2)]
    again = import_file(
        settings=settings, path=write("ABC-1m-2026-11-18.csv", f"{row(0)}\n{row(1)}\n{row(2)}")
    )
    assert (again.rejected, again.quarantine) == (0, None)
    assert mended.quarantine is not None
    assert not Path(mended.quarantine).exists()


def test_exchange_outranks_a_file_and_the_loser_is_recorded(
    settings: Settings, connection: psycopg.Connection, oracle: Oracle,
    dump: Callable[[str, str], Path], tmp_path: Path,
) -> None:  # fmt: skip
    lines = lines_of(dump("COSUSDT", "1m"))
    busy = next(index for index, line in enumerate(lines) if line.split(",")[8] != "0")
    fields = lines[busy].split(",")
    fields[8] = str(int(fields[8]) + 5)
    lines[busy] = ",".join(fields)
    path = tmp_path / "COSUSDT-1m-2026-11-18.csv"
    path.write_text("\n".join(lines))
    import_file(settings=settings, path=path)
    end = DAY + (busy + 1) * MINUTE_US
    repair_minutes(settings=settings, symbol="COSUSDT", start_us=DAY, end_us=end)
    import_file(settings=settings, path=path)
    assert values(read_candles(connection, "COSUSDT", DAY, end)) == values(
        oracle("COSUSDT", DAY, end)
    )
    losers = connection.execute(
        "SELECT loser_source, loser_trade_count FROM ops.discrepancies"
    ).fetchall()
    assert losers == [("file", int(fields[8]))]


def test_progress_reaches_100_percent(settings: Settings, dump: Callable[[str, str], Path]) -> None:
    seen = []
    import_file(settings=settings, path=dump("COSUSDT", "1m"), on_progress=seen.append)
    assert (seen[-1].share, seen[-1].rows) == (1.0, 1440)


def test_damaged_archive_is_refused_completely(
    settings: Settings, connection: psycopg.Connection, dump: Callable[[str, str], Path]
) -> None:
    path = dump("COSUSDT", "1m")
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 0xFF
    path.write_bytes(body)
    with pytest.raises(RejectedInputError, match="is damaged"):
        import_file(settings=settings, path=path)
    assert connection.execute("SELECT count(*) FROM market.candles_1m").fetchone() == (0,)


def row(minute: int) -> str:
    at = DAY + minute * MINUTE_US
    return f"{at},1,1,1,1,1,{at + MINUTE_US - 1},1,1,1,1,0"


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Callable[[str, str], Path]]:
    def make(name: str, text: str) -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return make


@pytest.mark.parametrize(
    ("name", "text", "error", "message"),
    [
        ("prices.csv", row(0), PermanentError, "does not say its symbol"),
        ("X-1m-2026-11-18.txt", row(0), RejectedInputError, "none of .csv"),
        ("X-5m-2026-11-18.csv", row(0), RejectedInputError, "holds 5m"),
        ("X-1m-2026-11-18.csv", "", RejectedInputError, "is empty"),
        ("X-1m-2026-11-18.csv", "a,b\n1,2", RejectedInputError, "known are 1m klines"),
        (
            "X-1m-2026-11-18.csv",
            "\n".join(row(2_000 + minute) for minute in range(1_000)),
            RejectedInputError,
            "none of its first 1000 rows is usable; line 1: open_time is outside",
        ),
    ],
)
def test_unsupported_file_is_refused_with_the_reason(
    settings: Settings, write: Callable[[str, str], Path], name: str, text: str,
    error: type[Exception], message: str,
) -> None:  # fmt: skip
    with pytest.raises(error, match=message):
        import_file(settings=settings, path=write(name, text))


FULL = "open_time,open,high,low,close,volume,qav,num_trades,taker_base_vol,taker_quote_vol"
SHOWN = (
    "SELECT open, volume, quote_volume, trade_count, taker_buy_volume, status, source, file "
    "FROM market.candles_1m_with_foreign WHERE symbol = %s ORDER BY open_time"
)


def test_foreign_rows_that_lack_values_stay_apart_with_nulls(
    settings: Settings, connection: psycopg.Connection, write: Callable[[str, str], Path]
) -> None:
    text = "time,open,high,low,close,volume\n" + "".join(
        f"2026-11-18 00:0{number}:00,1,2,1,2,{number}.5\n" for number in range(3)
    )
    path = write("mine.csv", text)
    for _ in range(2):
        summary = import_file(settings=settings, path=path, symbol="abc", columns="auto")
        assert (summary.rows, summary.incomplete, summary.merged.offered) == (3, 3, 0)
    assert connection.execute("SELECT count(*) FROM market.candles_1m").fetchone() == (0,)
    shown = connection.execute(SHOWN, ("ABC",)).fetchall()
    assert [tuple(map(str, row)) for row in shown] == [
        ("1", f"{number}.5", "None", "None", "None", "unverified", "foreign", "mine.csv")
        for number in range(3)
    ]
    # A row of any other source takes its minute; of foreign ones the most complete is shown.
    import_file(settings=settings, path=write("ABC-1m-2026-11-18.csv", row(0)))
    fuller = "time,open,high,low,close,volume,num_trades\n2026-11-18T00:01Z,1,3,1,2,7,9\n"
    import_file(settings=settings, path=write("z.csv", fuller), symbol="ABC", columns="auto")
    shown = connection.execute(SHOWN, ("ABC",)).fetchall()
    assert [row[5:] for row in shown] == [
        ("unconfirmed", "file", None),
        ("unverified", "foreign", "z.csv"),
        ("unverified", "foreign", "mine.csv"),
    ]


def test_corrected_foreign_file_replaces_its_rows(
    settings: Settings, connection: psycopg.Connection, write: Callable[[str, str], Path]
) -> None:
    for volume in ("5", ""):
        text = f"time,open,high,low,close,volume\n1795000020,1,2,1,2,{volume}\n"
        import_file(settings=settings, path=write("mine.csv", text), symbol="ABC", columns="auto")
    rows = connection.execute("SELECT volume, file FROM market.foreign_candles_1m").fetchall()
    assert rows == [(None, "mine.csv")]


def test_complete_foreign_rows_lose_to_every_other_row(
    settings: Settings, connection: psycopg.Connection, write: Callable[[str, str], Path]
) -> None:
    partial = partial_row(row(0))
    merge_candidates(connection, [partial])
    text = f"{FULL}\n" + "".join(
        f"{DAY + number * MINUTE_US},7,9,6,8,5,40,3,1,8\n" for number in range(2)
    )
    path = write("mine.csv", text)
    summary = import_file(settings=settings, path=path, symbol="ABC", columns="auto")
    assert (summary.rows, summary.incomplete, summary.merged.inserted) == (2, 0, 1)
    kinds = connection.execute(
        "SELECT status, source, source_rank FROM market.candles_1m ORDER BY open_time"
    ).fetchall()
    assert kinds == [("partial", "stream", 10), ("unconfirmed", "foreign", 5)]
    import_file(settings=settings, path=write("ABC-1m-2026-11-18.csv", row(1)))
    sources = connection.execute(
        "SELECT source FROM market.candles_1m ORDER BY open_time"
    ).fetchall()
    assert sources == [("stream",), ("file",)]
    covered = connection.execute("SELECT DISTINCT source FROM ops.coverage ORDER BY 1").fetchall()
    assert covered == [("file",), ("foreign",)]


def partial_row(line: str) -> CandleCandidate:
    fields = line.split(",")
    numbers = [Decimal(fields[at]) for at in (1, 2, 3, 4, 5, 7)]
    taker = [Decimal(fields[at]) for at in (9, 10)]
    candle = Candle("ABC", int(fields[0]), *numbers, int(fields[8]), *taker)
    return CandleCandidate(candle, Status.PARTIAL, Source.STREAM)


def test_rejected_rows_of_equal_names_are_separated_by_market(
    settings: Settings, connection: psycopg.Connection, write: Callable[[str, str], Path]
) -> None:
    path = write("ABC-1m-2026-11-18.csv", f"{row(0)}\n{row(1)[:20]}")
    spot = import_file(settings=settings, path=path, market="spot")
    path.write_text(f"{row(0)}\n{row(1)}\n{row(2)[:20]}")
    um = import_file(settings=settings, path=path, market="um")

    assert (spot.file, um.file) == (path.name, path.name)
    for summary, line in ((spot, "2"), (um, "3")):
        assert summary.quarantine is not None
        with Path(summary.quarantine).open(newline="") as file:
            assert [each[0] for each in csv.reader(file)] == ["line", line]
    kept = connection.execute("SELECT file, line FROM ops.rejected_rows ORDER BY line").fetchall()
    assert kept == [(f"ABC/{path.name}", 2), (f"ABC.P/{path.name}", 3)]
    ledger = connection.execute("SELECT path, symbol FROM ops.dump_files ORDER BY 2").fetchall()
    assert ledger == [(f"ABC/{path.name}", "ABC"), (f"ABC.P/{path.name}", "ABC.P")]


def test_rejected_rows_of_equal_names_are_separated_by_folder(
    settings: Settings, connection: psycopg.Connection, tmp_path: Path
) -> None:
    name = "ABC-1m-2026-11-18.csv"
    texts = {
        "x": f"{row(0)}\n{row(1)[:20]}",
        "y": f"{row(2)}\n1,2\n3,4",
        "z": f"{row(2)}\n1,2\n3,4",
    }
    for folder, text in texts.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(text)
    for _ in range(2):  # a repeat doubles nothing
        done = [import_file(settings=settings, path=tmp_path / one / name) for one in texts]
        assert [one.rejected for one in done] == [1, 2, 2]
        kept = connection.execute(
            "SELECT origin, file, line FROM ops.rejected_rows ORDER BY origin, line"
        ).fetchall()
        assert kept == [
            (str(tmp_path / folder), f"ABC/{name}", line)
            for folder, line in (("x", 2), ("y", 2), ("y", 3), ("z", 2), ("z", 3))
        ]
        lines = [len(Path(str(one.quarantine)).read_text().splitlines()) for one in done]
        assert lines == [2, 3, 3]


def test_foreign_rows_of_equal_names_are_kept_apart(
    settings: Settings, connection: psycopg.Connection, tmp_path: Path
) -> None:
    name = "ABC.csv"
    for folder, volume in (("x", 1), ("y", 2)):
        (tmp_path / folder).mkdir()
        text = f"time,open,high,low,close,volume\n{DAY // 1000},1,2,1,2,{volume}\n"
        (tmp_path / folder / name).write_text(text)
    for _ in range(2):
        for folder in ("x", "y"):
            path = tmp_path / folder / name
            import_file(settings=settings, path=path, symbol="ABC", columns="auto")
    kept = connection.execute(
        "SELECT origin, volume FROM market.foreign_candles_1m ORDER BY origin"
    ).fetchall()
    assert kept == [(str(tmp_path / "x"), 1), (str(tmp_path / "y"), 2)]
    shown = connection.execute("SELECT count(*) FROM market.candles_1m_with_foreign").fetchone()
    assert shown == (1,)


def test_file_refused_in_the_middle_is_in_the_ledger(
    settings: Settings, connection: psycopg.Connection, write: Callable[[str, str], Path]
) -> None:
    path = write("ABC-1m-2026-11-18.csv", f"{row(0).replace(',', ',x', 1)}\n" * HOPELESS_ROWS)
    with pytest.raises(RejectedInputError, match="none of its first"):
        import_file(settings=settings, path=path)
    ledger = connection.execute("SELECT verdict, detail ->> 'error' FROM ops.dump_files").fetchall()
    assert [verdict for verdict, _ in ledger] == ["refused"]
    assert "none of its first" in ledger[0][1]


@pytest.mark.parametrize("symbol", ["../ABC", "..", "A\\B"])
def test_symbol_that_escapes_its_folder_is_refused(
    settings: Settings, write: Callable[[str, str], Path], symbol: str
) -> None:
    with pytest.raises(PermanentError, match="is not a symbol"):
        import_file(settings=settings, path=write("mine.csv", row(0)), symbol=symbol)


def test_symbol_and_market_are_options_or_follow_from_the_path(
    settings: Settings, write: Callable[[str, str], Path], tmp_path: Path
) -> None:
    path = write("mine.csv", row(0))
    assert import_file(settings=settings, path=path, symbol="abc", market="um").symbol == "ABC.P"
    folder = tmp_path / "futures" / "um" / "daily"
    folder.mkdir(parents=True)
    moved = path.rename(folder / "ABC-1m-2026-11.csv")
    assert import_file(settings=settings, path=moved).symbol == "ABC.P"
