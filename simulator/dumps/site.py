"""The dump site: an S3 listing and zips of klines, aggTrades and trades, made when asked for.

Layout, columns, units and headers are those of data.binance.vision: spot without a header, in ms
before 2025-01-01 and µs from then on; USD-M with a header, always in ms. A period is published
when it is over, after a delay. The same seed gives the same bytes.
"""

import hashlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from xml.sax.saxutils import escape

from simulator.cache import BoundedCache
from simulator.clock import DAY_US, SECOND_US, Clock, from_us, to_us
from simulator.market.instruments import MarketName
from simulator.market.intervals import SPOT_INTERVALS, UM_INTERVALS, parse_interval
from simulator.market.market import Market
from simulator.wire.frames import US_PER_MS, agg_trade_rows, kline_row, trade_rows

PAGE_KEYS = 1_000
_MICROSECONDS_SINCE_US = to_us(datetime(2025, 1, 1, tzinfo=UTC))
_FOLDERS: dict[MarketName, str] = {"spot": "data/spot", "um": "data/futures/um"}
_KINDS = ("aggTrades", "klines", "trades")  # in the order of the listing
_UM_HEADERS = {
    "klines": "open_time,open,high,low,close,volume,close_time,quote_volume,count,"
    "taker_buy_volume,taker_buy_quote_volume,ignore",
    "aggTrades": "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,"
    "is_buyer_maker",
    "trades": "id,price,qty,quote_qty,time,is_buyer_maker",
}
_ZIP_TIME = (2024, 1, 1, 0, 0, 0)  # fixed, so that the bytes are


@dataclass(frozen=True, slots=True)
class DumpFile:
    """One published zip."""

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


def _folder_interval(name: str) -> str:
    """Months are `1mo` in paths: `1M` would collide with `1m` where case is ignored."""
    return "1mo" if name == "1M" else name


class DumpSite:
    """All dumps of the given markets as of the clock's time.

    Args:
        daily_delay_us, monthly_delay_us: from the end of the period to its publication.
    """

    def __init__(
        self,
        markets: dict[MarketName, Market],
        clock: Clock,
        *,
        daily_delay_us: int = 0,
        monthly_delay_us: int = 0,
    ) -> None:
        self._markets = markets
        self._clock = clock
        self._delays_us = {"daily": daily_delay_us, "monthly": monthly_delay_us}
        self._zips: BoundedCache[str, bytes] = BoundedCache(64)

    # --- what there is

    def files(
        self, market: MarketName, cadence: str, kind: str, symbol: str, interval: str | None
    ) -> Iterator[DumpFile]:
        """The published files of one folder, oldest first."""
        start_us = self._markets[market].history(symbol).start_us
        now_us = self._clock.now_us()
        period = parse_interval("1d" if cadence == "daily" else "1M")
        folder = f"{_FOLDERS[market]}/{cadence}/{kind}/{symbol}"
        label = kind
        if interval is not None:
            label = _folder_interval(interval)
            folder = f"{folder}/{label}"
        open_us = period.open_of(start_us)
        while True:
            end_us = period.next_open(open_us)
            published_us = end_us + self._delays_us[cadence]
            if published_us > now_us:
                return
            date = from_us(open_us).strftime("%Y-%m-%d" if cadence == "daily" else "%Y-%m")
            path = f"{folder}/{symbol}-{label}-{date}.zip"
            yield DumpFile(market, kind, symbol, interval, open_us, end_us, path, published_us)
            open_us = end_us

    def find(self, path: str) -> DumpFile | None:
        """The published file at a path (without leading slash); None if there is none."""
        for market, folder in _FOLDERS.items():
            if not path.startswith(folder + "/") or market not in self._markets:
                continue
            parts = path.removeprefix(folder + "/").split("/")
            if len(parts) < 4:
                return None
            cadence, kind, symbol = parts[:3]
            if cadence not in self._delays_us or symbol not in self._markets[market]:
                return None
            if kind not in _kinds(cadence):
                return None
            interval = None
            if kind == "klines":
                names = {_folder_interval(name): name for name in _intervals(market, cadence)}
                interval = names.get(parts[3])
                if interval is None:
                    return None
            return next(
                (
                    file
                    for file in self.files(market, cadence, kind, symbol, interval)
                    if file.path == path
                ),
                None,
            )
        return None

    def read(self, file: DumpFile) -> bytes:
        """The zip; the same bytes each time."""
        return self._zips.get(file.path, lambda: _zip(file.stem, self._csv(file)))

    def checksum(self, file: DumpFile) -> bytes:
        """The CHECKSUM file: `<sha256>  <name>`, without an end of line, as recorded."""
        return f"{hashlib.sha256(self.read(file)).hexdigest()}  {file.stem}.zip".encode()

    # --- contents

    def _csv(self, file: DumpFile) -> bytes:
        market = self._markets[file.market]
        instrument = market.instrument(file.symbol)
        is_micro = file.market == "spot" and file.start_us >= _MICROSECONDS_SINCE_US
        unit_us = 1 if is_micro else US_PER_MS
        lines = [_UM_HEADERS[file.kind]] if file.market == "um" else []
        if file.interval is not None:
            rows = market.klines(
                file.symbol,
                file.interval,
                file.start_us,
                file.end_us - 1,
                view_us=file.end_us - 1,
            )
            lines += [
                ",".join(map(str, kline_row(instrument, row, unit_us=unit_us))) for row in rows
            ]
        else:
            tape = market.day_tape(file.symbol, file.start_us)
            make = agg_trade_rows if file.kind == "aggTrades" else trade_rows
            lines += [
                ",".join(_csv_text(value, file.market) for value in row.values())
                for row in make(tape, unit_us=unit_us)
            ]
        return ("\n".join(lines) + "\n").encode()

    # --- listing

    def listing(self, *, prefix: str, delimiter: str, marker: str) -> bytes:
        """One page of the S3 listing (ListObjects, version 1), at most 1000 entries."""
        entries: list[tuple[str, DumpFile | None]] = []
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
            modified = from_us(file.published_us).strftime("%Y-%m-%dT%H:%M:%S.000Z")
            lines.append(
                f"<Contents><Key>{escape(key)}</Key><LastModified>{modified}</LastModified>"
                "<StorageClass>STANDARD</StorageClass></Contents>"
            )
        lines.append("</ListBucketResult>")
        return "\n".join(lines).encode()

    def _entries(
        self, prefix: str, delimiter: str, marker: str
    ) -> Iterator[tuple[str, DumpFile | None]]:
        """Keys and common prefixes after `marker`, in order of their bytes."""
        if delimiter not in ("", "/"):
            raise ValueError(f"delimiter is {delimiter!r}; it must be '/' or left out")
        yield from self._walk("", prefix, bool(delimiter), marker)

    def _walk(
        self, folder: str, prefix: str, collapses: bool, marker: str
    ) -> Iterator[tuple[str, DumpFile | None]]:
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
            for key in (file.path, f"{file.path}.CHECKSUM"):
                if key.startswith(prefix) and key > marker:
                    yield key, file

    def _folders_in(self, folder: str) -> list[str]:
        """Names of the folders in a folder; empty where the files are."""
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
                return list(_kinds(cadence))
            case [cadence, kind] if kind in _kinds(cadence):
                return list(self._markets[market])
            case [cadence, "klines", symbol] if symbol in self._markets[market]:
                return [_folder_interval(name) for name in _intervals(market, cadence)]
        return []

    def _files_in(self, folder: str) -> Iterator[DumpFile]:
        found = self._locate(folder)
        if found is None:
            return
        market, rest = found
        if len(rest) < 3 or rest[2] not in self._markets[market]:
            return
        cadence, kind, symbol = rest[:3]
        if kind != "klines" and len(rest) == 3 and kind in _kinds(cadence):
            yield from self.files(market, cadence, kind, symbol, None)
        elif kind == "klines" and len(rest) == 4:
            for name in _intervals(market, cadence):
                if _folder_interval(name) == rest[3]:
                    yield from self.files(market, cadence, kind, symbol, name)

    def _locate(self, folder: str) -> tuple[MarketName, list[str]] | None:
        for market, root in _FOLDERS.items():
            if market in self._markets and folder.startswith(root + "/"):
                return market, folder.removeprefix(root + "/").split("/")[:-1]
        return None


def _kinds(cadence: str) -> tuple[str, ...]:
    return _KINDS if cadence == "daily" else ("klines",)


def _intervals(market: MarketName, cadence: str) -> tuple[str, ...]:
    """Intervals that are dumped: a day's file holds no bars longer than a day."""
    names = SPOT_INTERVALS if market == "spot" else UM_INTERVALS
    if cadence == "monthly":
        return tuple(name for name in names if name != "1s")  # 2.6 million rows each
    return tuple(name for name in names if (parse_interval(name).step_us or 31 * DAY_US) <= DAY_US)


def _csv_text(value: int | str | bool, market: MarketName) -> str:
    if isinstance(value, bool):
        return str(value) if market == "spot" else str(value).lower()
    return str(value)


def _zip(stem: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    entry = zipfile.ZipInfo(f"{stem}.csv", date_time=_ZIP_TIME)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(entry, content, compresslevel=6)
    return buffer.getvalue()


def delay_us(seconds: float) -> int:
    """Seconds of a setting as µs."""
    return int(seconds * SECOND_US)
