"""What requests ask for, checked: symbols, timeframes, times, pages."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from datetime import UTC, date, datetime

from include.domain.instruments import unknown_symbol
from include.domain.timeframes import Timeframe, to_us
from include.domain.timeframes import timeframe as timeframe_of
from serving.problems import Problem, refused, shown, unknown
from serving.protobuf.bars import EARLIEST_US, LATEST_US

MAX_SYMBOLS = 100
_NUMBER = re.compile(r"-?[0-9]{1,18}")


def timeframe(name: str) -> Timeframe:
    """The timeframe of that name.

    Raises:
        Problem: the exchange has none such.
    """
    try:
        return timeframe_of(name)
    except ValueError as error:
        raise refused(f"timeframe: {error}"[:300]) from None


def symbols(names: Iterable[str], known: frozenset[str]) -> list[str]:
    """Names given once or several times, each of them perhaps several by comma; in order.

    Raises:
        Problem: there are none, too many, or unknown ones.
    """
    found = list(
        dict.fromkeys(part.strip() for name in names for part in name.split(",") if part.strip())
    )
    if not found:
        raise refused("symbol: none given; should be one such as BTCUSDT or BTCUSDT.P")
    if len(found) > MAX_SYMBOLS:
        raise refused(f"symbol: {len(found)} given; should be {MAX_SYMBOLS} at most")
    for name in found:
        if name not in known:
            raise unknown(nobody_knows(name, known))
    return found


def nobody_knows(name: str, known: Iterable[str]) -> str:
    """That there is no such symbol, with the nearest ones."""
    if len(name) > 64:
        return f"symbol: {shown(name)} is none"
    return f"symbol: {unknown_symbol(name, known)}"


def moment_us(name: str, text: str | None) -> int | None:
    """A time in µs, from ISO 8601 or milliseconds since 1970.

    Raises:
        Problem: it is neither.
    """
    if text is None:
        return None
    found = int(text) * 1_000 if _NUMBER.fullmatch(text) else _iso_us(name, text)
    if not EARLIEST_US <= found < LATEST_US:
        raise refused(f"{name}: {shown(text)} must lie within the years 1 to 9999")
    return found


def _iso_us(name: str, text: str) -> int:
    # A plus sign of a URL that was not encoded comes as a space.
    try:
        moment = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
    except ValueError:
        raise _no_time(name, text) from None
    try:
        return to_us(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))
    except OverflowError:
        raise _no_time(name, text) from None


def _no_time(name: str, text: str) -> Problem:
    return refused(
        f"{name}: {shown(text)} is no time; should be ISO 8601 such as 2026-11-21T00:00:00Z, or "
        "milliseconds since 1970"
    )


def day(name: str, text: str | None) -> date | None:
    """A day of UTC.

    Raises:
        Problem: it is none.
    """
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise refused(f"{name}: {shown(text)} is no day; should be such as 2026-11-21") from None


def span_us(start: str | None, end: str | None) -> tuple[int | None, int | None]:
    """``from`` and ``to`` in µs.

    Raises:
        Problem: one is no time, or they are in the wrong order.
    """
    start_us, end_us = moment_us("from", start), moment_us("to", end)
    if start_us is not None and end_us is not None and end_us < start_us:
        raise refused(f"to: {shown(end)} lies before from, {shown(start)}")
    return start_us, end_us


def cursor_of(*parts: int) -> str:
    """Where the next page begins, as text that callers only hand back."""
    return base64.urlsafe_b64encode(",".join(map(str, parts)).encode()).decode().rstrip("=")


def parts_of(cursor: str, count: int) -> list[int]:
    """What ``cursor_of`` was given.

    Raises:
        Problem: nobody gave it out.
    """
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
        found = [int(part) for part in text.split(",")]
    except (ValueError, binascii.Error):
        found = []
    if len(found) != count or not all(EARLIEST_US <= one < LATEST_US for one in found):
        raise refused(f"cursor: {shown(cursor)} is not one that an answer gave as next_cursor")
    return found
