"""Types of request parameters: FastAPI checks and describes them.

A parameter that is wrong is refused with its name, its value and what would be right.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Annotated

from fastapi import Query
from pydantic import AfterValidator, BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from include.domain.instruments import Market, unknown_symbol
from include.domain.timeframes import TIMEFRAMES, from_us_text, timeframe, to_us
from serving.problems import refused, shown, unknown
from serving.protobuf.bars import EARLIEST_US, LATEST_US

MAX_SYMBOLS = 100
MAX_NAME = 64
"""Characters of a name that an error repeats."""
_NUMBER = re.compile(r"-?[0-9]{1,18}")


def _wrong(reason: str) -> PydanticCustomError:
    return PydanticCustomError("wrong_value", "{reason}", {"reason": reason})


# --- timeframes and markets


def _timeframe_name(name: str) -> str:
    try:
        return timeframe(name).name
    except ValueError as error:
        raise _wrong(str(error)[:300]) from None


def _market_name(name: str) -> str:
    try:
        return Market(name).value
    except ValueError:
        raise _wrong(f"{shown(name)}; should be {' or '.join(Market)}") from None


TimeframeName = Annotated[
    str,
    AfterValidator(_timeframe_name),
    WithJsonSchema({"type": "string", "enum": list(TIMEFRAMES)}),
]
MarketName = Annotated[
    str, AfterValidator(_market_name), WithJsonSchema({"type": "string", "enum": list(Market)})
]


# --- times


def parse_time_us(text: str) -> int:
    """Parse a time into µs: ISO 8601, or milliseconds since 1970.

    Raises:
        PydanticCustomError: it is neither, or outside the years 1 to 9999.
    """
    found = int(text) * 1_000 if _NUMBER.fullmatch(text) else _iso_us(text)
    if not EARLIEST_US <= found < LATEST_US:
        raise _wrong(f"{shown(text)} must lie within the years 1 to 9999")
    return found


def _iso_us(text: str) -> int:
    try:
        # An unencoded plus sign in a URL arrives as a space.
        moment = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
        return to_us(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        raise _wrong(
            f"{shown(text)} is no time; should be ISO 8601 such as 2026-11-21T00:00:00Z, or "
            "milliseconds since 1970"
        ) from None


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise _wrong(f"{shown(text)} is no day; should be such as 2026-11-21") from None


_TEXT = WithJsonSchema({"type": "string"})
TimeUs = Annotated[int, BeforeValidator(parse_time_us), _TEXT]
"""A time in µs since 1970, sent as text."""
Day = Annotated[date, BeforeValidator(_day), WithJsonSchema({"type": "string", "format": "date"})]
"""A UTC day."""
From = Annotated[
    TimeUs | None, Query(alias="from", description="ISO 8601, or ms since 1970; inclusive.")
]
To = Annotated[TimeUs | None, Query(alias="to", description="The same, exclusive; now without it.")]


def check_range(start_us: int | None, end_us: int | None) -> None:
    """Check that ``from`` is not after ``to``.

    Raises:
        Problem: it is.
    """
    if start_us is not None and end_us is not None and end_us < start_us:
        raise refused(f"to: {from_us_text(end_us)} lies before from, {from_us_text(start_us)}")


# --- symbols


def split_symbols(names: Iterable[str]) -> list[str]:
    """Split names that were given once or repeatedly, each perhaps a list separated by commas.

    Raises:
        PydanticCustomError: none or too many.
    """
    found = list(
        dict.fromkeys(part.strip() for name in names for part in name.split(",") if part.strip())
    )
    if not found:
        raise _wrong("none given; should be one such as BTCUSDT or BTCUSDT.P")
    if len(found) > MAX_SYMBOLS:
        raise _wrong(f"{len(found)} given; should be {MAX_SYMBOLS} at most")
    return found


def _split_if_given(names: list[str] | None) -> list[str] | None:
    return None if names is None else split_symbols(names)


def _one_symbol(name: str) -> str:
    if len(split_symbols([name])) > 1:
        raise _wrong("several given; should be one, since ids belong to it")
    return name.strip(", ")


OneSymbol = Annotated[str, AfterValidator(_one_symbol)]
Symbols = Annotated[list[str], AfterValidator(split_symbols)]
OptionalSymbols = Annotated[list[str] | None, AfterValidator(_split_if_given)]


def check_symbols(names: Iterable[str], known: frozenset[str]) -> None:
    """Check that all symbols exist.

    Raises:
        Problem: one does not.
    """
    for name in names:
        if name not in known:
            raise unknown(unknown_symbol_text(name, known))


def unknown_symbol_text(name: str, known: Iterable[str]) -> str:
    """Say that a symbol does not exist, and name the nearest ones."""
    if len(name) > MAX_NAME:
        return f"symbol: {shown(name)} is none"
    return f"symbol: {unknown_symbol(name, known)}"


# --- cursors

Cursor = Annotated[
    str | None, Query(description="`next_cursor` of the page before; the rest as there.")
]


def cursor_of(*parts: int) -> str:
    """Encode where the next page begins."""
    return base64.urlsafe_b64encode(",".join(map(str, parts)).encode()).decode().rstrip("=")


def parse_cursor(cursor: str, count: int) -> list[int]:
    """Decode a cursor.

    Raises:
        Problem: it did not come from ``cursor_of`` with this many parts.
    """
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
        found = [int(part) for part in text.split(",")]
    except (ValueError, binascii.Error):
        found = []
    if len(found) != count or not all(EARLIEST_US <= one < LATEST_US for one in found):
        raise refused(f"cursor: {shown(cursor)} is not a next_cursor of a previous response")
    return found
