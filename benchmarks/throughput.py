"""Frames a second from a socket to candles in PostgreSQL, against a bare loop and cryptofeed.

One tape of combined aggTrade frames of 1,500 symbols (Zipf), with the closed kline of each symbol
and minute, is sent over loopback as fast as the reader reads. Three kinds of reader take turns,
each in a process on its own core; the sender and PostgreSQL share the other core:

- the complete streamer: until every frame was handled and every candle is in the table. The
  benchmark compares each row with the market's row in nine values, and each candle must have agreed
  with its closed kline;
- the bare loop: receives with the same library, decodes into the same structs, and counts;
- cryptofeed's current release in its own environment: its trade callback counts, without a
  database. It does not subscribe to the klines, which are one frame in five hundred.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import psycopg

from benchmarks.load.market import MINUTE_US, SECOND_US, MadeMarket
from benchmarks.load.processes import CORES, Talking, cpu_s, sender, talking, tree_cpu_s
from benchmarks.load.trade_tape import Tape, make_tape
from deploy.local.postgres import EmbeddedPostgres
from include.store.migrate import migrate

SYMBOLS = 1_500
TRADES_PER_S = 20_000
"""Trades a second of the market's clock; a higher rate means fewer minutes end in the run."""
MINUTES = 1
ROUNDS = 3
START_US = 29_395_280 * MINUTE_US - 2 * SECOND_US
STREAMS_PER_CONNECTION = 1_000
BENCH_PYTHON = Path(".venv-bench/bin/python")
CRYPTOFEED = str(Path(__file__).with_name("readers") / "cryptofeed.py")

CANDLES = """
SELECT
    symbol, extract(epoch FROM open_time)::bigint * 1000000, open, high, low, close, volume,
    quote_volume, trade_count, taker_buy_volume, taker_buy_quote_volume, status::text
FROM market.candles_1m
"""


@dataclass(slots=True)
class Reader:
    """Results of one kind of reader, round by round.

    Attributes:
        rates: frames a second.
        cpu_us: CPU time (µs) of a frame on the reader's core.
    """

    rates: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)

    def note(self, frames: int, took_s: float, busy_s: float) -> None:
        """Add the result of one round."""
        self.rates.append(frames / took_s)
        self.cpu_us.append(busy_s / frames * 1e6)

    @property
    def rate(self) -> float:
        """Median of the rates."""
        return statistics.median(self.rates)

    def __str__(self) -> str:
        spread = f"{min(self.rates):,.0f} to {max(self.rates):,.0f}"
        return f"{self.rate:,.0f} frames/s ({spread}; {statistics.median(self.cpu_us):.2f} µs CPU)"


class Rounds:
    """The tape, a server, and the measurement of one round for each reader."""

    def __init__(self, folder: Path, tape: Tape, server: EmbeddedPostgres) -> None:
        self._folder = folder
        self._tape = tape
        self._server = server
        self._names = folder / "names"
        groups = [
            tape.streams[first : first + STREAMS_PER_CONNECTION]
            for first in range(0, len(tape.streams), STREAMS_PER_CONNECTION)
        ]
        self._names.write_text("\n".join(" ".join(group) for group in groups))
        self._databases = 0
        self.postgres_us: list[float] = []
        self.after_s: list[float] = []
        """Timeout from the last frame to the last row."""

    def streamer(self, into: Reader) -> None:
        """Measure the complete streamer."""
        tape = self._tape
        self._databases += 1
        url = self._server.create_database(f"throughput_{self._databases}")
        migrate(url)
        rows = sum(map(len, tape.closed.values()))

        def start(ws_url: str, rest_url: str) -> AbstractContextManager[Talking]:
            return talking(
                ["-m", "benchmarks.readers.streamer", str(tape.frames), str(rows)],
                core=CORES[0],
                environment={
                    "DATABASE_URL": url,
                    "BINANCE_WS_URL": ws_url,
                    "BINANCE_REST_URL": rest_url,
                    "STREAMER_HTTP_PORT": "0",
                },
            )

        postmaster = self._server.pid
        assert postmaster is not None
        before_s = tree_cpu_s(postmaster)
        told = self._round(into, start, frames=tape.frames, streams=len(tape.streams))
        self.postgres_us.append((tree_cpu_s(postmaster) - before_s) / tape.frames * 1e6)
        self.after_s.append((told["at_us"] - told["last_us"]) / 1e6)
        self._check(url, told, rows)

    def bare(self, into: Reader) -> None:
        """Measure the bare loop: receive, decode, count."""

        def start(ws_url: str, rest_url: str) -> AbstractContextManager[Talking]:
            options = [f"{ws_url}/stream", str(self._names), str(self._tape.frames)]
            return talking(["-m", "benchmarks.readers.bare", *options], core=CORES[0])

        self._round(into, start, frames=self._tape.frames, streams=len(self._tape.streams))

    def cryptofeed(self, into: Reader) -> None:
        """Measure cryptofeed's feed and its trade callback."""
        trades = self._tape.count("aggTrade")

        def start(ws_url: str, rest_url: str) -> AbstractContextManager[Talking]:
            return talking(
                [CRYPTOFEED, ws_url, rest_url, str(trades)],
                core=CORES[0],
                python=str(BENCH_PYTHON),
                environment={"XDG_CACHE_HOME": str(self._folder)},
            )

        self._round(into, start, frames=trades, streams=len(self._tape.symbols))

    def _round(
        self,
        into: Reader,
        start: Callable[[str, str], AbstractContextManager[Talking]],
        *,
        frames: int,
        streams: int,
    ) -> dict[str, int]:
        """Play the tape to a reader that subscribes to a number of streams; return its final
        output."""
        with sender("--tape", str(self._folder), "--streams", str(streams)) as exchange:
            ready = exchange.wait("ready")
            with start(ready["ws_url"], ready["rest_url"]) as reader:
                begun = exchange.wait("begun")
                before_s = cpu_s(reader.pid)
                done = reader.wait("done", timeout_s=120)
                busy_s = cpu_s(reader.pid) - before_s
        into.note(frames, (done["at_us"] - begun["at_us"]) / 1e6, busy_s)
        return done

    def _check(self, url: str, told: dict[str, object], rows: int) -> None:
        """Check that every candle exists, equals the market's in nine values, and agreed with its
        kline.

        Raises:
            AssertionError: a candle does not; the message names it.
        """
        expected = {
            (name, open_us): (*row[1:6], *row[7:11])
            for open_us, of_minute in self._tape.closed.items()
            for name, row in zip(self._tape.symbols, of_minute, strict=True)
        }
        with psycopg.connect(url) as connection:
            stored = connection.execute(CANDLES).fetchall()
        assert len(stored) == rows, f"{len(stored)} candles in place of {rows}: {told}"
        for symbol, open_us, *values, status in stored:
            right = [Decimal(str(value)) for value in expected[symbol, open_us]]
            assert values == right, f"{symbol} {open_us}: {values} in place of {right}"
            assert status == "verified", f"{symbol} {open_us} is {status}"
        # The minute joined midway is compared only if its first trade was seen.
        least = rows - len(self._tape.symbols)
        assert told["compared"] >= least, f"{told['compared']} candles of {least} were compared"  # type: ignore[operator]
        assert not told["bad_frames"], told


def run() -> None:
    """Print the rates and their ratios."""
    ours, bare, theirs = Reader(), Reader(), Reader()
    try:
        with tempfile.TemporaryDirectory(prefix="candelabra-bench-") as name:
            folder = Path(name)
            folder.chmod(0o755)
            market = MadeMarket(symbols=SYMBOLS, start_us=START_US, trades_per_s=TRADES_PER_S)
            tape = make_tape(market, START_US + MINUTES * MINUTE_US + 6 * SECOND_US)
            tape.save(folder)
            os.sched_setaffinity(0, CORES[-1:])
            with EmbeddedPostgres(folder / "pg") as server:
                rounds = Rounds(folder, tape, server)
                for _ in range(ROUNDS):
                    rounds.bare(bare)
                    rounds.streamer(ours)
                    if BENCH_PYTHON.exists():
                        rounds.cryptofeed(theirs)
    finally:
        os.sched_setaffinity(0, CORES)
    print(
        f"throughput: {tape.frames:,} frames of {SYMBOLS:,} symbols to verified candles {ours}, "
        f"bare loop {bare}: ratio {ours.rate / bare.rate:.2f}"
    )
    print(
        f"throughput: PostgreSQL took {statistics.median(rounds.postgres_us):.2f} µs CPU a frame, "
        f"the last row came {statistics.median(rounds.after_s) * 1_000:.0f} ms after the last frame"
    )
    if theirs.rates:
        print(f"throughput: cryptofeed {theirs}: {ours.rate / theirs.rate:.1f} times that")
    else:
        print("throughput: no cryptofeed to compare with; `make bench` installs it")
