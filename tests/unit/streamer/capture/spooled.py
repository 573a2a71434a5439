"""Records for a spool, and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

from include.store.trades.captured import BOOK_TICKERS
from streamer.capture.spool.losses import Loss
from streamer.capture.spool.segments import Record
from streamer.capture.spool.spool import Spool

AT_US = 1_763_716_800_000_000
"""2025-11-21 09:20 UTC."""


def record(*numbers: int, symbol: str = "BTCUSDT") -> Record:
    price = Decimal("1.5")
    return Record(
        BOOK_TICKERS.name,
        [
            BOOK_TICKERS.line((symbol, n, price, price, price, price, None, AT_US + n))
            for n in numbers
        ],
    )


def numbers_of(record: Record | list[Loss] | None) -> list[int]:
    assert isinstance(record, Record)
    return [int(line.split("\t")[2]) for line in record.lines]


def replayed(spool: Spool) -> tuple[list[int], list[Loss]]:
    """Everything in it, and its reported losses."""
    found: list[int] = []
    lost: list[Loss] = []
    while (one := spool.read()) is not None:
        if isinstance(one, list):
            lost += one
            continue
        found += numbers_of(one)
        spool.done()
    assert spool.is_empty
    return found, lost


def drained(spool: Spool) -> list[int]:
    return replayed(spool)[0]


def stretches(losses: list[Loss]) -> list[tuple[str, str, int | None, int]]:
    """Symbols, causes, and times by the numbers of their rows."""
    return [
        (
            loss.symbol,
            loss.cause,
            None if loss.from_us is None else loss.from_us - AT_US,
            loss.to_us - AT_US,
        )
        for loss in losses
    ]


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.spool"))


def modify(path: Path, change: Callable[[bytearray], object]) -> None:
    """Change a file's bytes, as a bad disk does."""
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)
