"""Which form a caller gets."""

from __future__ import annotations

import io
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from starlette.requests import Request

from serving.http import formats
from serving.http.formats import DECIMAL, ROWS_AT_ONCE, Format, accepted, table
from serving.problems import Problem


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", Format.JSON),
        ("*/*", Format.JSON),
        ("text/html,application/xhtml+xml,*/*;q=0.8", Format.JSON),
        ("text/csv", Format.CSV),
        ("text/*", Format.CSV),
        ("application/json;q=0.5, text/csv", Format.CSV),
        ("text/csv;q=0, application/json", Format.JSON),
        ("APPLICATION/VND.APACHE.PARQUET", Format.PARQUET),
        ("application/vnd.apache.arrow.file; q=1", Format.ARROW),
        (";;;", Format.JSON),
    ],
)
def test_first_supported_media_type_is_chosen(accept: str, form: Format) -> None:
    assert accepted(accept) is form


@pytest.mark.parametrize("accept", ["application/xml", "text/csv;q=0", "text/csv;q=none"])
def test_unsupported_media_type_is_refused_with_the_supported_ones(accept: str) -> None:
    with pytest.raises(Problem, match="application/json, text/csv"):
        accepted(accept)


@pytest.mark.parametrize("count", [0, 1, ROWS_AT_ONCE, 2 * ROWS_AT_ONCE + 1])
@pytest.mark.parametrize(
    ("form", "reader"), [(Format.ARROW, pl.read_ipc), (Format.PARQUET, pl.read_parquet)]
)
def test_columns_are_built_in_chunks_and_contain_all_rows(
    count: int, form: Format, reader: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once: list[int] = []

    def frame(rows: list[Any], **options: Any) -> pl.DataFrame:
        at_once.append(len(rows))
        return made(rows, **options)

    made = pl.DataFrame
    monkeypatch.setattr(formats.pl, "DataFrame", frame)
    request = Request(
        {"type": "http", "query_string": b"", "headers": [(b"accept", form.value.encode())]}
    )
    rows = [(number, str(number)) for number in range(count)]
    answer = table(
        request, "rows", {"id": pl.Int64, "text": pl.String}, rows, further={}, headers={}
    )
    monkeypatch.undo()
    assert sum(at_once) == count
    assert max(at_once) <= ROWS_AT_ONCE
    told = reader(io.BytesIO(answer.body))
    assert told.schema == {"id": pl.Int64, "text": pl.String}
    assert told.rows() == rows


@pytest.mark.parametrize(
    ("form", "reader"), [(Format.ARROW, pl.read_ipc), (Format.PARQUET, pl.read_parquet)]
)
def test_decimals_stay_exact_and_unknown_ones_null_unless_floats_are_asked_for(
    form: Format, reader: Any
) -> None:
    values = ["1E-18", "12345678901234567890.1234567890123456", None, "0.10"]
    rows = [(None if one is None else Decimal(one),) for one in values]
    rows[-1] = ("0.10",)  # type: ignore[assignment]
    for query, kind in ((b"", DECIMAL), (b"numbers=float", pl.Float64)):
        request = Request(
            {
                "type": "http",
                "query_string": query,
                "headers": [(b"accept", form.value.encode())],
            }
        )
        answer = table(request, "rows", {"value": DECIMAL}, rows, further={}, headers={})
        told = reader(io.BytesIO(answer.body))
        assert told.schema == {"value": kind}
        number = Decimal if kind == DECIMAL else float
        assert told["value"].to_list() == [None if one is None else number(one) for one in values]
