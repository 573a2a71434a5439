"""Rows as JSON, CSV, Arrow or Parquet, as the client accepts."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from hashlib import sha256
from http import HTTPStatus
from typing import Annotated, Any

import msgspec
import polars as pl
from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from include.store.trades.liquidations import Liquidation
from serving.http.response_cache import CachedResponse
from serving.problems import Problem, shown
from serving.protobuf.bars import plain
from streamer.hub.ticks import BookTickerUpdate

Row = Sequence[Any]
ROWS_AT_ONCE = 1_000
"""Polars holds the interpreter lock while it converts rows: 2 ms for this many."""
VARY = "accept, accept-encoding"
DECIMAL = pl.Decimal(38, 18)
"""Decimals in Arrow and Parquet: one scale for all pages. The exchange sends sixteen digits after
the point at most; of computed averages, digits beyond the eighteenth are rounded off.
"""


class Format(StrEnum):
    """Media types of rows."""

    JSON = "application/json"
    CSV = "text/csv"
    ARROW = "application/vnd.apache.arrow.file"
    PARQUET = "application/vnd.apache.parquet"


class Numbers(StrEnum):
    """What decimals are in Arrow and Parquet."""

    DECIMAL = "decimal"
    FLOAT = "float"


NUMBERS = Annotated[
    Numbers,
    Query(
        description="Decimals in Arrow and Parquet: exact, with eighteen digits after the point, "
        "or binary floats, which are rounded. In JSON and CSV they are always text."
    ),
]


def numbers(numbers: NUMBERS = Numbers.DECIMAL) -> Numbers:
    """Check and describe the parameter of every route that answers with ``table``."""
    return numbers


def accepted(accept: str) -> Format:
    """The client's preferred supported media type; JSON without a preference.

    Raises:
        Problem: none is supported.
    """
    wishes = []
    for place, part in enumerate(accept.lower().split(",")):
        media, _, parameters = part.strip().partition(";")
        weight = 1.0
        for one in parameters.split(";"):
            name, _, value = one.strip().partition("=")
            if name == "q":
                try:
                    weight = float(value)
                except ValueError:
                    weight = 0.0
        if weight > 0:
            wishes.append((-weight, place, media.strip()))
    for _, _, media in sorted(wishes):
        if media in ("", "*/*", "application/*"):
            return Format.JSON
        if media == "text/*":
            return Format.CSV
        for one in Format:
            if media == one.value:
                return one
    raise Problem(
        HTTPStatus.NOT_ACCEPTABLE,
        f"accept: {shown(accept)} is none of {', '.join(one.value for one in Format)}",
    )


def table(
    request: Request,
    name: str,
    columns: Mapping[str, pl.DataType | type[pl.DataType]],
    rows: Sequence[Row],
    *,
    further: Mapping[str, Any],
    headers: Mapping[str, str],
) -> Response:
    """Return rows in the format that the client accepts.

    Decimals are text in JSON and CSV. In Arrow and Parquet they are numbers: decimals, or floats if
    the query has ``numbers=float``.

    Args:
        name: of the rows, and of the file.
        columns: names and types, in the order of the values.
        further: JSON fields beside the rows; other formats send ``next_cursor`` as a header.
        headers: of the response.
    """
    form = accepted(request.headers.get("accept", ""))
    all_headers = dict(headers)
    if form is not Format.JSON:
        all_headers["content-disposition"] = f'attachment; filename="{name}.{form.name.lower()}"'
        if (cursor := further.get("next_cursor")) is not None:
            all_headers["x-next-cursor"] = cursor
    all_headers["vary"] = VARY
    if request.query_params.get("numbers") == Numbers.FLOAT:
        columns = {name: pl.Float64 if one == DECIMAL else one for name, one in columns.items()}
    body = _WRITERS[form](name, columns, rows, further)
    return tagged(request, body, form.value, all_headers)


def joined(name: str, rows: Iterable[str], further: Mapping[str, Any]) -> CachedResponse:
    """Build the JSON of ``table`` from rows that are JSON already.

    Args:
        name: of the rows.
        rows: objects, or several of them separated by commas.
        further: JSON fields beside the rows.
    """
    text = ",".join(one for one in rows if one)
    rest = msgspec.json.encode(further)[1:]
    comma = b"" if rest == b"}" else b","
    body = b'{"%b":[%b]%b%b' % (name.encode(), text.encode(), comma, rest)
    return CachedResponse(body, etag_of(body))


def answered(request: Request, made: CachedResponse, *, headers: Mapping[str, str]) -> Response:
    """Return JSON that was built before."""
    all_headers = dict(headers) | {"vary": VARY}
    return _tagged(request, made.body, made.etag, Format.JSON.value, all_headers)


def json(request: Request, value: Any, *, headers: Mapping[str, str] | None = None) -> Response:
    """Return a value as JSON, with decimals as text."""
    return tagged(request, msgspec.json.encode(value), Format.JSON, headers or {})


def etag_of(body: bytes) -> str:
    """The ETag of a body."""
    return f'"{sha256(body).hexdigest()[:24]}"'


def tagged(request: Request, body: bytes, media_type: str, headers: Mapping[str, str]) -> Response:
    """A response with its ETag; 304 if the client has it already."""
    return _tagged(request, body, etag_of(body), media_type, headers)


def book_ticker_fields(one: BookTickerUpdate) -> dict[str, object]:
    """A book ticker as JSON fields, for the WebSocket and REST."""
    return {
        "symbol": one.symbol,
        "update_id": one.update_id,
        "bid_price": one.bid_price,
        "bid_quantity": one.bid_quantity,
        "ask_price": one.ask_price,
        "ask_quantity": one.ask_quantity,
        "event_time": None if one.event_us is None else one.event_us // 1_000,
        "received_time": one.received_us // 1_000,
    }


def liquidation_fields(one: Liquidation) -> dict[str, object]:
    """A liquidation as JSON fields, with times in ms since 1970."""
    return {
        "symbol": one.symbol,
        "id": str(one.id),
        "order_time": one.order_us // 1_000,
        "event_time": one.event_us // 1_000,
        "received_at": one.received_us // 1_000,
        "side": one.side,
        "order_type": one.order_type,
        "time_in_force": one.time_in_force,
        "price": plain(one.price),
        "average_price": plain(one.average_price),
        "quantity": plain(one.quantity),
        "last_filled_quantity": plain(one.last_filled_quantity),
        "accumulated_quantity": plain(one.accumulated_quantity),
        "order_status": one.order_status,
    }


# --- inside


def _tagged(
    request: Request, body: bytes, etag: str, media_type: str, headers: Mapping[str, str]
) -> Response:
    all_headers = dict(headers) | {"etag": etag}
    known = [
        one.strip().removeprefix("W/")
        for one in request.headers.get("if-none-match", "").split(",")
    ]
    if etag in known or known == ["*"]:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=all_headers)
    return Response(body, media_type=media_type, headers=all_headers)


def plain_json(value: Any) -> Any:
    """A value as JSON: decimals and times as text."""
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return value


def _json(
    name: str, columns: Mapping[str, Any], rows: Sequence[Row], further: Mapping[str, Any]
) -> bytes:
    names = tuple(columns)
    # The encoder converts times. This list is the largest part of a response's cost.
    all_headers = [
        dict(zip(names, [plain(v) if type(v) is Decimal else v for v in row], strict=True))
        for row in rows
    ]
    return msgspec.json.encode({name: all_headers, **further})


def _csv(
    _: str, columns: Mapping[str, Any], rows: Sequence[Row], _further: Mapping[str, Any]
) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([plain_json(value) for value in row] for row in rows)
    return text.getvalue().encode()


def _frame(columns: Mapping[str, Any], rows: Sequence[Row]) -> pl.DataFrame:
    schema = dict(columns)
    kinds = tuple(schema.values())
    parts = [
        pl.DataFrame(
            [
                [_cell(value, kind) for value, kind in zip(row, kinds, strict=True)]
                for row in rows[first : first + ROWS_AT_ONCE]
            ],
            schema=schema,
            orient="row",
        )
        for first in range(0, max(1, len(rows)), ROWS_AT_ONCE)
    ]
    return pl.concat(parts, rechunk=True)


def _cell(value: Any, kind: Any) -> Any:
    if kind == DECIMAL:  # of a text, polars would make null
        return Decimal(value) if isinstance(value, str) else value
    if kind == pl.Float64:
        return None if value is None else float(value)
    return plain(value) if isinstance(value, Decimal) else value


def _arrow(
    _: str, columns: Mapping[str, Any], rows: Sequence[Row], _further: Mapping[str, Any]
) -> bytes:
    buffer = io.BytesIO()
    _frame(columns, rows).write_ipc(buffer)
    return buffer.getvalue()


def _parquet(
    _: str, columns: Mapping[str, Any], rows: Sequence[Row], _further: Mapping[str, Any]
) -> bytes:
    buffer = io.BytesIO()
    _frame(columns, rows).write_parquet(buffer, compression="zstd")
    return buffer.getvalue()


_WRITERS: dict[
    Format, Callable[[str, Mapping[str, Any], Sequence[Row], Mapping[str, Any]], bytes]
] = {Format.JSON: _json, Format.CSV: _csv, Format.ARROW: _arrow, Format.PARQUET: _parquet}
