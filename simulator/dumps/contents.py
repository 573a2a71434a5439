"""Contents of a dump file: the CSV of its rows, the zip around it, and altered rows."""

import functools
import hashlib
import io
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from simulator.clock import DAY_US, MINUTE_US, SECOND_US, to_us
from simulator.dumps.faults import (
    AlterRows,
    DropRows,
    EmptyCells,
    LoseRows,
    RepeatRows,
    RowEffect,
    ShuffleRows,
)
from simulator.dumps.kinds import KINDS
from simulator.dumps.series import series_lines
from simulator.market.instruments import Instrument, MarketName
from simulator.market.intervals import parse_interval
from simulator.market.market import SimulatedMarket
from simulator.market.noise import derive_key, hash_counter
from simulator.wire.columns import agg_trade_lines, kline_lines, trade_lines
from simulator.wire.payloads import US_PER_MS, kline_row

_MICROSECONDS_SINCE_US = to_us(datetime(2025, 1, 1, tzinfo=UTC))
_ZIP_TIME = (2024, 1, 1, 0, 0, 0)  # fixed, so that equal contents give equal bytes
_ZIP_LEVEL = 1  # fast: a month of trades is hundreds of MB, and zips are not kept
_STEPS_US = {"1s": SECOND_US, "1m": MINUTE_US}

_METRICS_COLUMNS = 8

RowChange = RowEffect


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """One published zip.

    Attributes:
        start_us, end_us: the period, end exclusive.
        published_us: time of publication.
    """

    market: MarketName
    kind: str
    symbol: str
    interval: str | None
    start_us: int
    end_us: int
    path: str
    published_us: int

    @property
    def stem(self) -> str:
        """File name without `.zip`."""
        return self.path.rpartition("/")[2].removesuffix(".zip")


@dataclass(frozen=True, slots=True)
class AlteredRow:
    """A row of a file that differs from the truth.

    Attributes:
        key: first column: open time or id, as printed.
        true: the correct line.
        served: the line in the file; None if it is missing.
    """

    key: str
    true: str
    served: str | None


@dataclass(frozen=True, slots=True)
class ZippedFile:
    """The bytes of a zip, and their SHA-256 in hex."""

    content: bytes
    digest: str


def make_zip(
    market: SimulatedMarket, file: PublishedFile, changes: tuple[RowChange, ...] = ()
) -> ZippedFile:
    """Return the zip of a file. Equal arguments give equal bytes."""
    buffer = io.BytesIO()
    entry = zipfile.ZipInfo(f"{file.stem}.csv", date_time=_ZIP_TIME)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=_ZIP_LEVEL) as archive,
        archive.open(entry, "w") as member,
    ):
        for chunk in csv_chunks(market, file, changes):
            member.write(chunk)
    content = buffer.getvalue()
    return ZippedFile(content, hashlib.sha256(content).hexdigest())


def csv_chunks(
    market: SimulatedMarket, file: PublishedFile, changes: tuple[RowChange, ...] = ()
) -> Iterator[bytes]:
    """Yield the CSV in whole lines: the header, then a day of trades or a file of klines."""
    if file.market != "spot":
        yield header(file.market, file.kind)
    if not changes:
        yield from _rows(market, file)
        return
    lines = b"".join(_rows(market, file)).decode().splitlines()
    changed = _changed(lines, file, changes, _contract_size(market, file))
    yield "".join(f"{line}\n" for line in changed).encode()


def altered_rows(
    market: SimulatedMarket, file: PublishedFile, changes: tuple[RowChange, ...]
) -> list[AlteredRow]:
    """Return the rows that `changes` make differ from the truth, in order."""
    lines = b"".join(_rows(market, file)).decode().splitlines()
    changed = _changed(lines, file, changes, _contract_size(market, file))
    served = {line.partition(",")[0]: line for line in changed}
    found = []
    for line in lines:
        key = line.partition(",")[0]
        if served.get(key) != line:
            found.append(AlteredRow(key, line, served.get(key)))
    return found


def _contract_size(market: SimulatedMarket, file: PublishedFile) -> int | None:
    """Return the contract size of COIN-M; None for a file of a pair, which has no amounts."""
    return market.instrument(file.symbol).contract_size if file.symbol in market else None


def header(market: MarketName, kind: str) -> bytes:
    """Return the first line of a futures file. Klines of COIN-M have USD-M's names, as recorded."""
    line = KINDS[kind].header
    return line.replace(b"quote_qty", b"base_qty") if market == "cm" else line


def _rows(market: SimulatedMarket, file: PublishedFile) -> Iterator[bytes]:
    instrument = market.instrument(file.symbol)
    is_micro = file.market == "spot" and file.start_us >= _MICROSECONDS_SINCE_US
    unit_us = 1 if is_micro else US_PER_MS
    if KINDS[file.kind].is_series:
        lines = series_lines(
            market, file.kind, file.symbol, file.interval, file.start_us, file.end_us
        )
        yield "".join(lines).encode()
        return
    if file.interval is not None:
        yield _klines(market, instrument, file, file.interval, unit_us)
        return
    render = agg_trade_lines if file.kind == "aggTrades" else trade_lines
    for day_us in range(file.start_us, file.end_us, DAY_US):
        if day_us + DAY_US > market.history(file.symbol).start_us:
            yield render(market.day_trades(file.symbol, day_us), unit_us=unit_us)


def _klines(
    market: SimulatedMarket,
    instrument: Instrument,
    file: PublishedFile,
    interval: str,
    unit_us: int,
) -> bytes:
    view_us = last_us = file.end_us - 1
    if interval in _STEPS_US:
        klines = market.kline_columns(
            file.symbol, parse_interval(interval), file.start_us, last_us, view_us=view_us
        )
        if klines is None:
            return b""
        return kline_lines(instrument, klines, step_us=_STEPS_US[interval], unit_us=unit_us)
    rows = market.klines(file.symbol, interval, file.start_us, last_us, view_us=view_us)
    texts = (",".join(map(str, kline_row(instrument, row, unit_us=unit_us))) for row in rows)
    return "".join(f"{text}\n" for text in texts).encode()


# --- rows altered on purpose


def _changed(
    lines: list[str], file: PublishedFile, changes: Iterable[RowChange], contract_size: int | None
) -> list[str]:
    for change in changes:
        match change:
            case DropRows(rows=rows):
                lines = lines[:-rows]
            case AlterRows(rows=rows):
                alter = functools.partial(_altered, file.kind, contract_size)
                lines = _each(lines, file, rows, "altered", alter)
            case LoseRows(rows=rows):
                lines = _each(lines, file, rows, "lost", lambda _line: [])
            case RepeatRows(rows=rows):
                lines = _each(lines, file, rows, "repeated", lambda line: [line, line])
            case EmptyCells(rows=rows):
                lines = _each(lines, file, rows, "emptied", lambda line: [_emptied(line)])
            case ShuffleRows():
                key = derive_key(0, file.path, "shuffled")
                order = sorted(range(len(lines)), key=lambda row: hash_counter(key, row))
                lines = [lines[row] for row in order]
    return lines


def _each(
    lines: list[str],
    file: PublishedFile,
    wanted: int,
    purpose: str,
    change: Callable[[str], list[str]],
) -> list[str]:
    """Replace some lines; which ones follows from the path."""
    key = derive_key(0, file.path, purpose)
    picked: set[int] = set()
    counter = 0
    while len(picked) < min(wanted, len(lines)):
        picked.add(hash_counter(key, counter) % len(lines))
        counter += 1
    return [
        part
        for number, line in enumerate(lines)
        for part in (change(line) if number in picked else [line])
    ]


def _altered(kind: str, contract_size: int | None, line: str) -> list[str]:
    return [_ALTERATIONS[kind](line.split(","), contract_size)]


def _emptied(line: str) -> str:
    """Empty the last cells: of `metrics` the four ratios, else the last one."""
    cells = line.split(",")
    kept = len(cells) - (4 if len(cells) == _METRICS_COLUMNS else 1)
    return ",".join(cells[:kept] + [""] * (len(cells) - kept))


def _alter_kline(fields: list[str], contract_size: int | None) -> str:
    """Add a trade at the close, by a selling taker."""
    fields[7] = _plus(fields[7], _amount(fields[4], fields[5], contract_size))
    fields[5] = _plus(fields[5], _unit(fields[5]))
    fields[8] = str(int(fields[8]) + 1)
    return ",".join(fields)


def _alter_agg_trade(fields: list[str], _contract_size: int | None) -> str:
    """Increase the quantity."""
    fields[2] = _plus(fields[2], _unit(fields[2]))
    return ",".join(fields)


def _alter_trade(fields: list[str], contract_size: int | None) -> str:
    """Increase the quantity and the quote amount."""
    fields[3] = _plus(fields[3], _amount(fields[1], fields[2], contract_size))
    fields[2] = _plus(fields[2], _unit(fields[2]))
    return ",".join(fields)


def _alter_price(fields: list[str], _contract_size: int | None) -> str:
    """Raise the high, or the funding rate, by one unit of its last digit."""
    fields[2] = _plus(fields[2], Decimal("1e-8"))
    return ",".join(fields)


def _alter_metrics(fields: list[str], _contract_size: int | None) -> str:
    """Raise open interest by 1."""
    fields[2] = _plus(fields[2], _unit(fields[2]))
    return ",".join(fields)


_ALTERATIONS = {
    "fundingRate": _alter_price,
    "indexPriceKlines": _alter_price,
    "markPriceKlines": _alter_price,
    "metrics": _alter_metrics,
    "premiumIndexKlines": _alter_price,
    "klines": _alter_kline,
    "aggTrades": _alter_agg_trade,
    "trades": _alter_trade,
}


def _amount(price: str, quantity: str, contract_size: int | None) -> Decimal:
    """Return the quote amount of one unit of quantity; on COIN-M the base amount."""
    if contract_size is not None:
        return contract_size / Decimal(price)
    return Decimal(price) * _unit(quantity)


def _unit(text: str) -> Decimal:
    """Return 1, which is a multiple of every step, with the decimals of the text."""
    return Decimal(1).quantize(Decimal(text))


def _plus(text: str, more: Decimal) -> str:
    """Return the sum with the same number of decimals."""
    value = Decimal(text)
    return format((value + more).quantize(value), "f")
