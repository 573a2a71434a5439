"""The dump site: an S3 listing and zips, made on request.

Layout, columns, units and headers are those of data.binance.vision: spot without a header, in ms
before 2025-01-01 and in µs since; USD-M with a header, always in ms. A period is published when it
is over, after a delay. The same seed gives the same bytes; faults change them.
"""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from xml.sax.saxutils import escape

from simulator.cache import BoundedCache
from simulator.clock import DAY_US, SECOND_US, SimulatedClock, from_us, to_us
from simulator.dumps.contents import (
    AlteredRow,
    PublishedFile,
    RowChange,
    ZippedFile,
    altered_rows,
    make_zip,
)
from simulator.dumps.faults import (
    ContentEffect,
    CorruptZip,
    DumpFaults,
    LatePublication,
    MissingChecksum,
    MissingFile,
    ReissueFile,
    StaleChecksum,
    TruncateZip,
)
from simulator.dumps.kinds import KINDS, folder_names, kinds_of, symbol_of
from simulator.market.instruments import MarketName
from simulator.market.intervals import SPOT_INTERVALS, UM_INTERVALS, parse_interval
from simulator.market.market import SimulatedMarket
from simulator.market.noise import derive_key, hash_counter

PAGE_KEYS = 1_000
_FOLDERS: dict[MarketName, str] = {
    "spot": "data/spot",
    "um": "data/futures/um",
    "cm": "data/futures/cm",
}
_DATES = {"daily": "%Y-%m-%d", "monthly": "%Y-%m"}
_PERIODS = {"daily": "1d", "monthly": "1M"}
_CACHED_BYTES = 256 << 20


def _folder_interval(name: str) -> str:
    """Return the interval's name in paths: months are `1mo`, as case may be ignored."""
    return "1mo" if name == "1M" else name


class SimulatedDumpSite:
    """All dumps of the given markets as of the clock's time.

    Args:
        daily_delay_us, monthly_delay_us: from the end of the period to its publication.
        faults: fault rules.
    """

    def __init__(
        self,
        markets: dict[MarketName, SimulatedMarket],
        clock: SimulatedClock,
        *,
        daily_delay_us: int = 0,
        monthly_delay_us: int = 0,
        faults: DumpFaults | None = None,
    ) -> None:
        self._markets = markets
        self._clock = clock
        self._delays_us = {"daily": daily_delay_us, "monthly": monthly_delay_us}
        self.faults = faults or DumpFaults()
        self._zips: BoundedCache[tuple[str, tuple[RowChange, ...]], ZippedFile] = BoundedCache(
            _CACHED_BYTES,
            weigh=lambda made: len(made.content),
            makes_once=True,  # a zip and its checksum are often requested together
        )

    # --- what there is

    def files(
        self, market: MarketName, cadence: str, kind: str, symbol: str, interval: str | None
    ) -> Iterator[PublishedFile]:
        """Yield the published files of one folder, oldest first."""
        now_us = self._clock.now_us()
        period = parse_interval(_PERIODS[cadence])
        open_us = period.open_of(self._start_us(market, kind, symbol))
        while open_us <= now_us:
            file = self._file(market, cadence, kind, symbol, interval, open_us)
            if self._is_published(file, now_us, counts=False):
                yield file
            open_us = file.end_us

    def _symbol(self, market: MarketName, kind: str, name: str) -> str:
        symbol = symbol_of(self._markets[market], KINDS[kind], name)
        if symbol is None:
            raise KeyError(f"{market} has no {kind} of {name}")
        return symbol

    def _start_us(self, market: MarketName, kind: str, name: str) -> int:
        return self._markets[market].history(self._symbol(market, kind, name)).start_us

    def _file(
        self,
        market: MarketName,
        cadence: str,
        kind: str,
        symbol: str,
        interval: str | None,
        open_us: int,
    ) -> PublishedFile:
        folder = f"{_FOLDERS[market]}/{cadence}/{kind}/{symbol}"
        label = kind
        if interval is not None:
            label = _folder_interval(interval)
            folder = f"{folder}/{label}"
        path = f"{folder}/{symbol}-{label}-{from_us(open_us).strftime(_DATES[cadence])}.zip"
        end_us = parse_interval(_PERIODS[cadence]).next_open(open_us)
        late_us = sum(late.delay_us for late in self.faults.of(LatePublication, path, counts=False))
        published_us = end_us + self._delays_us[cadence] + late_us
        return PublishedFile(
            market,
            kind,
            self._symbol(market, kind, symbol),
            interval,
            open_us,
            end_us,
            path,
            published_us,
        )

    def _is_published(self, file: PublishedFile, now_us: int, *, counts: bool) -> bool:
        if self.faults.of(MissingFile, file.path, counts=counts):
            return False
        if not self._has_rows(file):
            return False
        if file.published_us <= now_us:
            return True
        self.faults.of(LatePublication, file.path, counts=counts)
        return False

    def find(self, path: str, *, counts: bool = True) -> PublishedFile | None:
        """Return the published file at a path (without leading slash), or None.

        Args:
            counts: faults that hide the file count this as a hit.
        """
        for market, folder in _FOLDERS.items():
            if market in self._markets and path.startswith(folder + "/"):
                file = self._named(market, path.removeprefix(folder + "/").split("/"))
                if file is None or file.path != path:
                    return None
                is_there = self._is_published(file, self._clock.now_us(), counts=counts)
                return file if is_there else None
        return None

    def _has_rows(self, file: PublishedFile) -> bool:
        """Return whether the period has a file: none while the symbol is halted or not listed."""
        history = self._markets[file.market].history(file.symbol)
        if file.kind == "klines":
            return history.has_klines(file.start_us, file.end_us)
        if history.calendar.overlaps(file.start_us, file.end_us):
            return True
        return KINDS[file.kind].is_series and history.calendar.state(file.start_us) == "halted"

    def _named(self, market: MarketName, parts: list[str]) -> PublishedFile | None:
        """Return the file with a path's parts, published or not."""
        if len(parts) < 4:
            return None
        cadence, kind, symbol = parts[:3]
        if cadence not in _DATES or not self._has_folder(market, cadence, kind, symbol):
            return None
        interval = None
        if KINDS[kind].has_intervals:
            names = {_folder_interval(name): name for name in _intervals(market, cadence)}
            interval = names.get(parts[3])
            if interval is None:
                return None
        text = parts[-1].removesuffix(".zip")
        text = text[-10:] if cadence == "daily" else f"{text[-7:]}-01"
        try:
            date = datetime.fromisoformat(text)
        except ValueError:
            return None  # no file has such a name
        open_us = to_us(date.replace(tzinfo=UTC))
        period = parse_interval(_PERIODS[cadence])
        if open_us < period.open_of(self._start_us(market, kind, symbol)):
            return None
        return self._file(market, cadence, kind, symbol, interval, open_us)

    def _has_folder(self, market: MarketName, cadence: str, kind: str, name: str) -> bool:
        return (
            kind in kinds_of(market, cadence)
            and symbol_of(self._markets[market], KINDS[kind], name) is not None
        )

    # --- contents

    def read(self, file: PublishedFile) -> bytes:
        """Return the zip as served. The bytes differ between calls only by faults."""
        content = self._zip(file, self._row_changes(file)).content
        return _damaged(content, file.path, self.faults.contents(file.path))

    def checksum(self, file: PublishedFile) -> bytes:
        """Return the CHECKSUM file: `<sha256>  <name>`, without a newline, as recorded."""
        made = self._zip(file, self._row_changes(file))
        digest = made.digest
        effects = self.faults.contents(file.path, counts=False)
        fitting = tuple(
            effect
            for effect in effects
            if isinstance(effect, CorruptZip | TruncateZip) and effect.checksum_fits
        )
        if fitting:
            digest = hashlib.sha256(_damaged(made.content, file.path, fitting)).hexdigest()
        if self.faults.of(StaleChecksum, file.path):
            digest = hashlib.sha256(f"an earlier issue of {file.path}".encode()).hexdigest()
        return f"{digest}  {file.stem}.zip".encode()

    def altered_rows(self, path: str) -> list[AlteredRow]:
        """Return the rows of a published file that differ from the truth."""
        file = self.find(path, counts=False)
        if file is None:
            return []
        return altered_rows(self._markets[file.market], file, self._row_changes(file))

    def modified_us(self, file: PublishedFile) -> int:
        """Return when the current issue was published."""
        now_us = self._clock.now_us()
        issues = [
            effect.at_us
            for effect in self.faults.of(ReissueFile, file.path, counts=False)
            if effect.at_us <= now_us
        ]
        return max([file.published_us, *issues])

    def _row_changes(self, file: PublishedFile) -> tuple[RowChange, ...]:
        now_us = self._clock.now_us()
        changes: list[RowChange] = []
        for effect in self.faults.contents(file.path, counts=False):
            if isinstance(effect, ReissueFile):
                if (effect.at_us > now_us) == effect.is_repair:
                    changes.append(effect.change)
            elif not isinstance(effect, CorruptZip | TruncateZip):
                changes.append(effect)
        return tuple(changes)

    def _zip(self, file: PublishedFile, changes: tuple[RowChange, ...]) -> ZippedFile:
        market = self._markets[file.market]
        return self._zips.get((file.path, changes), lambda: make_zip(market, file, changes))

    # --- listing

    def listing(self, *, prefix: str, delimiter: str, marker: str) -> bytes:
        """Return one page of the S3 listing (ListObjects, version 1), at most 1000 entries."""
        entries: list[tuple[str, PublishedFile | None]] = []
        is_truncated = False
        for entry in self._entries(prefix, delimiter, marker):
            if len(entries) == PAGE_KEYS:
                is_truncated = True
                break
            entries.append(entry)
        lines = [
            '<?xml version="1.0" encoding="UTF-8"?>',
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">',
            "<Name>data.binance.vision</Name>",
            f"<Prefix>{escape(prefix)}</Prefix><Marker>{escape(marker)}</Marker>",
        ]
        if is_truncated and delimiter:
            lines.append(f"<NextMarker>{escape(entries[-1][0])}</NextMarker>")
        lines.append(f"<MaxKeys>{PAGE_KEYS}</MaxKeys>")
        if delimiter:
            lines.append(f"<Delimiter>{escape(delimiter)}</Delimiter>")
        lines.append(f"<IsTruncated>{str(is_truncated).lower()}</IsTruncated>")
        for key, file in entries:
            if file is None:
                lines.append(f"<CommonPrefixes><Prefix>{escape(key)}</Prefix></CommonPrefixes>")
                continue
            modified = from_us(self.modified_us(file)).strftime("%Y-%m-%dT%H:%M:%S.000Z")
            lines.append(
                f"<Contents><Key>{escape(key)}</Key><LastModified>{modified}</LastModified>"
                "<StorageClass>STANDARD</StorageClass></Contents>"
            )
        lines.append("</ListBucketResult>")
        return "\n".join(lines).encode()

    def _entries(
        self, prefix: str, delimiter: str, marker: str
    ) -> Iterator[tuple[str, PublishedFile | None]]:
        """Yield keys and common prefixes after `marker`, in order of their bytes."""
        if delimiter not in ("", "/"):
            raise ValueError(f"delimiter is {delimiter!r}; it must be '/' or left out")
        yield from self._walk("", prefix, bool(delimiter), marker)

    def _walk(
        self, folder: str, prefix: str, collapses: bool, marker: str
    ) -> Iterator[tuple[str, PublishedFile | None]]:
        for name in sorted(self._folders_in(folder)):
            path = f"{folder}{name}/"
            if not (path.startswith(prefix) or prefix.startswith(path)):
                continue
            if path <= marker and (not marker.startswith(path) or (marker == path and collapses)):
                continue
            if collapses and path.startswith(prefix) and path != prefix:
                yield path, None
                continue
            yield from self._walk(path, prefix, collapses, marker)
        for file in self._files_in(folder):
            keys = [file.path]
            if not self.faults.of(MissingChecksum, file.path, counts=False):
                keys.append(f"{file.path}.CHECKSUM")
            for key in keys:
                if key.startswith(prefix) and key > marker:
                    yield key, file

    def _folders_in(self, folder: str) -> list[str]:
        """Return the names of the folders in a folder; empty at the level of files."""
        parts = folder.split("/")[:-1]
        tops = [root.split("/") for name, root in _FOLDERS.items() if name in self._markets]
        deeper = {root[len(parts)] for root in tops if root[: len(parts)] == parts != root}
        if deeper:
            return list(deeper)
        found = self._locate(folder)
        if found is None:
            return []
        market, rest = found
        match rest:
            case []:
                return list(self._delays_us)
            case [cadence] if cadence in self._delays_us:
                return kinds_of(market, cadence)
            case [cadence, kind] if kind in kinds_of(market, cadence):
                return folder_names(self._markets[market], KINDS[kind], self._clock.now_us())
            case [cadence, kind, symbol] if self._has_folder(market, cadence, kind, symbol):
                if KINDS[kind].has_intervals:
                    return [_folder_interval(name) for name in _intervals(market, cadence)]
        return []

    def _files_in(self, folder: str) -> Iterator[PublishedFile]:
        found = self._locate(folder)
        if found is None:
            return
        market, rest = found
        if len(rest) < 3 or not self._has_folder(market, *rest[:3]):
            return
        cadence, kind, symbol = rest[:3]
        if not KINDS[kind].has_intervals and len(rest) == 3:
            yield from self.files(market, cadence, kind, symbol, None)
        elif KINDS[kind].has_intervals and len(rest) == 4:
            for name in _intervals(market, cadence):
                if _folder_interval(name) == rest[3]:
                    yield from self.files(market, cadence, kind, symbol, name)

    def _locate(self, folder: str) -> tuple[MarketName, list[str]] | None:
        for market, root in _FOLDERS.items():
            if market in self._markets and folder.startswith(root + "/"):
                return market, folder.removeprefix(root + "/").split("/")[:-1]
        return None


def _intervals(market: MarketName, cadence: str) -> tuple[str, ...]:
    """Return the published intervals: a day's file has no klines longer than a day."""
    names = SPOT_INTERVALS if market == "spot" else UM_INTERVALS
    if cadence == "monthly":
        return tuple(name for name in names if name != "1s")  # 2.6 million rows each
    return tuple(name for name in names if (parse_interval(name).step_us or 31 * DAY_US) <= DAY_US)


def _damaged(content: bytes, path: str, effects: tuple[ContentEffect, ...]) -> bytes:
    """Return the zip with the effects of faults on its bytes."""
    for effect in effects:
        if isinstance(effect, TruncateZip):
            content = content[: len(content) * effect.keep_percent // 100]
        elif isinstance(effect, CorruptZip) and content:
            key = derive_key(0, path, "flips")
            flipped = bytearray(content)
            for number in range(effect.flips):
                drawn = hash_counter(key, number)
                # the compressed rows are in the middle half
                place = len(content) // 4 + drawn % max(1, len(content) // 2)
                flipped[place] ^= 1 + (drawn >> 32) % 255
            content = bytes(flipped)
    return content


def delay_us(seconds: float) -> int:
    """Convert seconds of a setting to µs."""
    return int(seconds * SECOND_US)
