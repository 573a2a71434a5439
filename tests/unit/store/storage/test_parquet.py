"""Files of the archive: their columns, exact values, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from include.errors import RejectedInputError
from include.store.storage.parquet import content_of, copy_lines, read_day, schema_of
from include.store.trades.captured import AGG_TRADES, BOOK_TICKERS, RAW_TABLES, TRADES, RawTable

AT = datetime(2026, 11, 18, 23, 59, 59, 999_999, tzinfo=UTC)
LARGEST = Decimal("999999999999999999999999999999.99999999")


def frame() -> pl.DataFrame:
    rows = [
        ("A", 1, Decimal("1E-8"), LARGEST, None, AT, True, "INSURANCE_FUND"),
        ("Ж", 2**62, Decimal(93_000), Decimal("0.10"), Decimal(0), AT, False, None),
    ]
    return pl.DataFrame(rows, schema=schema_of(TRADES), orient="row")


@pytest.mark.parametrize("table", RAW_TABLES.values(), ids=RAW_TABLES)
def test_file_has_the_columns_of_its_table_except_the_day(table: RawTable) -> None:
    assert ["day", *schema_of(table)] == sorted(
        table.columns, key=lambda name: -1 if name == "day" else table.columns.index(name)
    )


def test_amounts_are_decimals_times_are_microseconds_and_ids_are_integers() -> None:
    kinds = {str(of) for of in (*schema_of(AGG_TRADES).values(), *schema_of(BOOK_TICKERS).values())}
    assert kinds == {
        "String", "Int64", "Boolean", "Decimal(precision=38, scale=8)",
        "Datetime(time_unit='us', time_zone='UTC')",
    }  # fmt: skip


def test_extreme_values_round_trip(tmp_path: Path) -> None:
    frame().write_parquet(tmp_path / "a.parquet")
    assert pl.concat(read_day(TRADES, tmp_path / "a.parquet")).equals(frame())


def test_lines_for_copy_are_plain_text_in_utc() -> None:
    assert copy_lines(TRADES, frame()).splitlines() == [
        f"A,1,0.00000001,{LARGEST},,2026-11-18 23:59:59.999999+00,true,INSURANCE_FUND",
        f"Ж,{2**62},93000.00000000,0.10000000,0.00000000,2026-11-18 23:59:59.999999+00,false,",
    ]


def test_file_of_an_older_version_has_null_in_the_columns_that_it_lacks(tmp_path: Path) -> None:
    frame().drop("trade_type").write_parquet(tmp_path / "a.parquet")
    (older,) = read_day(TRADES, tmp_path / "a.parquet")
    assert [line.rsplit(",", 1)[1] for line in copy_lines(TRADES, older).splitlines()] == ["", ""]


@pytest.mark.parametrize(
    "other",
    [
        frame().reverse(),
        frame()[:1],
        frame().with_columns(price=pl.col("quantity")),
        frame().with_columns(quote_quantity=pl.lit(None, pl.Decimal(38, 8))),
        frame().with_columns(trade_time=pl.col("trade_time") + pl.duration(microseconds=1)),
    ],
    ids=["order", "fewer", "an amount", "a null", "a microsecond"],
)
def test_content_hash_differs_with_any_value(tmp_path: Path, other: pl.DataFrame) -> None:
    frame().write_parquet(tmp_path / "a.parquet")
    other.write_parquet(tmp_path / "b.parquet")
    frame().write_parquet(tmp_path / "c.parquet", compression="lz4", row_group_size=1)

    one, another, same = (content_of(TRADES, tmp_path / f"{name}.parquet") for name in "abc")

    assert one == same
    assert one.sha256 != another.sha256


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda whole: whole[:-9], "cannot be read as Parquet"),
        (lambda whole: whole[:4] + bytes(len(whole) - 4), "cannot be read as Parquet"),
        (lambda _whole: b"", "cannot be read as Parquet"),
        (None, "is missing; put the archived file back"),
    ],
    ids=["cut", "zeros", "empty", "missing"],
)
def test_unreadable_file_is_named(tmp_path: Path, damage: object, message: str) -> None:
    path = tmp_path / "a.parquet"
    frame().write_parquet(path)
    if callable(damage):
        path.write_bytes(damage(path.read_bytes()))
    else:
        path.unlink()
    with pytest.raises(RejectedInputError, match=f"{path} {message}"):
        content_of(TRADES, path)


def test_damage_in_the_middle_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    frame().write_parquet(path)
    whole, good = path.read_bytes(), content_of(TRADES, path)
    data = slice(4, whole.index(b"Int64") if b"Int64" in whole else len(whole) // 3)
    for at in range(data.start, data.stop, 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            found = content_of(TRADES, path)
        except RejectedInputError:
            continue
        assert found != good or pl.read_parquet(path).equals(frame())


def test_file_of_another_table_is_refused(tmp_path: Path) -> None:
    frame().write_parquet(tmp_path / "a.parquet")
    with pytest.raises(RejectedInputError, match="other columns than an archive of agg_trades"):
        content_of(AGG_TRADES, tmp_path / "a.parquet")
