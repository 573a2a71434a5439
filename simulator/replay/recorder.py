"""Writes streams of the simulated market to a recording, as fast as they can be generated."""

import gzip
import heapq
import io
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
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

_HISTORY_US = 3 * DAY_US  # history before the recording if no start is given
_GZIP_LEVEL = 5
_WRITE_BYTES = 1 << 20
_NS_PER_US = 1_000


@dataclass(frozen=True, slots=True)
class RecordingSummary:
    """File, frames and bytes of a written recording."""

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
    """Yield the frames of streams that are due from `from_us` to before `until_us`, in order.

    Returns:
        Pairs of due time (µs) and frame in combined form, as a permanently connected client
        receives them.

    Raises:
        ValueError: the market has no such stream.
    """
    feeds = []
    for number, stream in enumerate(streams):
        feed = open_feed(market, stream, from_us, seed=seed)
        if feed is None:
            raise ValueError(
                f"the simulated market has no stream {stream!r}; use streams of listed symbols, "
                "like btcusdt@aggTrade"
            )
        feeds.append(_numbered(number, feed, until_us))
    # Frames with equal due times are ordered by stream.
    for due_us, number, render in heapq.merge(*feeds, key=lambda entry: entry[:2]):
        head = f'{{"stream":"{streams[number]}","data":'
        for payload in render(unit_us):
            yield due_us, f"{head}{payload}}}"


def _numbered(
    number: int, feed: Iterator[DueFrame], until_us: int
) -> Iterator[tuple[int, int, Render]]:
    for due_us, render in itertools.takewhile(lambda due: due[0] < until_us, feed):
        yield due_us, number, render


def record(
    config: SimulatorConfig, *, is_stopped: Callable[[], bool] = lambda: False
) -> RecordingSummary:
    """Write the configured recording; an existing file is replaced at the end.

    Each line is `<ns> <frame>`; the time of receipt is the due time.

    Args:
        is_stopped: asked before each frame. Signal handlers must make it return true, and not
            raise: an exception in the middle of a compressed write would be lost.

    Raises:
        InterruptedError: `is_stopped` returned true; nothing was written.
        ValueError: the times are out of order, there is no such stream, or the file cannot be
            written.
    """
    path, first, until = config.record_file, config.record_from, config.record_until
    if path is None or first is None or until is None:
        raise ValueError("the configuration lacks record_file, record_from or record_until")
    begin_us, until_us = to_us(first), to_us(until)
    start_us = (begin_us - _HISTORY_US) // DAY_US * DAY_US
    if config.start is not None:
        start_us = to_us(config.start)
    if not start_us <= begin_us < until_us:
        raise ValueError(
            f"the recording is from {first} until {until}, and the market starts at "
            f"{from_us(start_us)}; the order must be start, from, until"
        )
    name = config.replay_market
    market = SimulatedMarket(
        select_instruments(
            name,
            config.symbols(name),
            generated=config.generated(name),
            seed=config.seed,
            period_us=(start_us, until_us),
        ),
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
            if is_stopped():
                raise InterruptedError
            file.write(f"{due_us * _NS_PER_US} {frame}\n".encode())
            count += 1
    return RecordingSummary(str(path), count, path.stat().st_size)


@contextmanager
def _replaced(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that replaces `path` once complete; gzipped if its name ends in `.gz`."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with unfinished.open("wb") as plain:
            if path.suffix != ".gz":
                yield plain
            else:
                # No name and no time in the header: equal recordings have equal bytes.
                with (
                    gzip.GzipFile("", "wb", _GZIP_LEVEL, plain, mtime=0) as packed,
                    io.BufferedWriter(cast(io.RawIOBase, packed), _WRITE_BYTES) as buffered,
                ):
                    yield cast(IO[bytes], buffered)
        os.replace(unfinished, path)
    except InterruptedError:
        raise
    except OSError as error:
        raise ValueError(f"cannot write the recording {path}: {error.strerror}") from error
    finally:
        unfinished.unlink(missing_ok=True)
