"""Writes streams of the simulated market to a recording, as fast as they can be made."""

import gzip
import heapq
import io
import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from simulator.clock import DAY_US, from_us, to_us
from simulator.config import SimulatorConfig
from simulator.market.instruments import select_instruments
from simulator.market.market import SimulatedMarket
from simulator.streams.feeds.catalogue import open_feed
from simulator.streams.feeds.trades import DueFrame
from simulator.streams.hub import Render

_HISTORY_US = 3 * DAY_US  # before the recording, where no start is given
_GZIP_LEVEL = 5
_WRITE_BYTES = 1 << 20
_NS_PER_US = 1_000


@dataclass(frozen=True, slots=True)
class RecordingSummary:
    """What was written."""

    file: str
    frames: int
    bytes: int


def due_frames(
    market: SimulatedMarket,
    streams: Sequence[str],
    *,
    from_us: int,
    until_us: int,
    unit_us: int,
    seed: int,
) -> Iterator[tuple[int, str]]:
    """The frames of streams that are due from `from_us` to before `until_us`, in that order.

    Returns:
        Pairs of the time at which a frame is due (µs) and the frame in its combined form, as a
        client that listens all the time receives them.

    Raises:
        ValueError: the market has no such stream.
    """
    feeds = []
    for number, stream in enumerate(streams):
        feed = open_feed(market, stream, from_us, seed=seed)
        if feed is None:
            raise ValueError(
                f"the simulated market has no stream {stream!r}; streams are written like "
                "btcusdt@aggTrade, of listed symbols"
            )
        feeds.append(_numbered(number, feed, until_us))
    # Frames that are due together come in the order of their streams.
    for due_us, number, render in heapq.merge(*feeds, key=lambda entry: entry[:2]):
        head = f'{{"stream":"{streams[number]}","data":'
        for payload in render(unit_us):
            yield due_us, f"{head}{payload}}}"


def _numbered(
    number: int, feed: Iterator[DueFrame], until_us: int
) -> Iterator[tuple[int, int, Render]]:
    for due_us, render in itertools.takewhile(lambda due: due[0] < until_us, feed):
        yield due_us, number, render


def record(config: SimulatorConfig) -> RecordingSummary:
    """Writes the file that a configuration asks for; an existing one is replaced at the end.

    Each line is `<ns> <frame>`, the time at which the frame is due being that of its receipt.

    Raises:
        ValueError: the times do not follow one another, there is no such stream, or the file
            cannot be written.
    """
    path, first, until = config.record_file, config.record_from, config.record_until
    if path is None or first is None or until is None:
        raise ValueError("the configuration names no recording: record_file and its times")
    begin_us, until_us = to_us(first), to_us(until)
    start_us = (begin_us - _HISTORY_US) // DAY_US * DAY_US
    if config.start is not None:
        start_us = to_us(config.start)
    if not start_us <= begin_us < until_us:
        raise ValueError(
            f"the recording lasts from {first} until {until}, and the market begins at "
            f"{from_us(start_us)}; these must follow one another: start, from, until"
        )
    name = config.replay_market
    symbols, generated = (
        (config.spot_symbols, config.generated_spot)
        if name == "spot"
        else (config.um_symbols, config.generated_um)
    )
    market = SimulatedMarket(
        select_instruments(name, symbols, generated=generated, seed=config.seed),
        seed=config.seed,
        start_us=start_us,
    )
    frames = due_frames(
        market,
        config.record_streams,
        from_us=begin_us,
        until_us=until_us,
        unit_us=config.record_unit_us,
        seed=config.seed,
    )
    count = 0
    with _replaced(path) as file:
        for due_us, frame in frames:
            file.write(f"{due_us * _NS_PER_US} {frame}\n".encode())
            count += 1
    return RecordingSummary(str(path), count, path.stat().st_size)


@contextmanager
def _replaced(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of `path` once it is complete; gzipped if its name says so."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with unfinished.open("wb") as plain:
            if path.suffix != ".gz":
                yield plain
            else:
                # No name and no time in its head: the same recording is the same bytes.
                with (
                    gzip.GzipFile("", "wb", _GZIP_LEVEL, plain, mtime=0) as packed,
                    io.BufferedWriter(cast(io.RawIOBase, packed), _WRITE_BYTES) as buffered,
                ):
                    yield cast(IO[bytes], buffered)
        os.replace(unfinished, path)
    except OSError as error:
        raise ValueError(f"cannot write the recording {path}: {error.strerror}") from error
    finally:
        unfinished.unlink(missing_ok=True)
