"""The fault matrix: each kind of fault of the simulator, and each component's reaction.

The tests of this folder run the cells; ``docs/fault-matrix.md`` shows them.
"""

from __future__ import annotations

from simulator.faults.kinds import KINDS, FaultGroup
from tests.integration.faults.cells import COMPONENTS, Cell, Component
from tests.integration.faults.matrix_jobs import BACKFILL, IMPORT, REPAIR_GAPS, SYNC_INSTRUMENTS
from tests.integration.faults.matrix_streams import START, STREAMER

MATRIX: dict[Component, dict[str, Cell]] = {
    "streamer": STREAMER,
    "start": START,
    "backfill": BACKFILL,
    "repair_gaps": REPAIR_GAPS,
    "sync_instruments": SYNC_INSTRUMENTS,
    "import": IMPORT,
}

GROUPS: dict[FaultGroup, str] = {
    "connection": "Connections",
    "frame": "Frames",
    "market": "The market itself",
    "series": "Derivative series",
    "rest": "REST",
    "dump": "Dump files",
}

UNTOUCHED: dict[tuple[Component, FaultGroup], str] = {
    ("streamer", "dump"): "reads no dump files",
    ("start", "frame"): "is over before the first frame",
    ("start", "dump"): "reads no dump files",
    ("backfill", "connection"): "opens no stream",
    ("backfill", "frame"): "opens no stream",
    ("repair_gaps", "connection"): "opens no stream",
    ("repair_gaps", "frame"): "opens no stream",
    ("repair_gaps", "dump"): "asks REST alone",
    ("sync_instruments", "connection"): "opens no stream",
    ("sync_instruments", "frame"): "opens no stream",
    ("sync_instruments", "dump"): "asks REST alone",
    ("import", "connection"): "asks no exchange",
    ("import", "frame"): "asks no exchange",
    ("import", "market"): "takes files as they are",
    ("import", "rest"): "asks no exchange",
    ("streamer", "series"): "loads no derivative series",
    ("start", "series"): "loads no derivative series",
    ("backfill", "series"): "loads no derivative series",
    ("repair_gaps", "series"): "loads no derivative series",
    ("sync_instruments", "series"): "loads no derivative series",
    ("import", "series"): "loads no derivative series",
}
"""Faults of a whole group that do not reach a component, and why."""

UNTOUCHED_KINDS: dict[tuple[Component, str], str] = {
    ("start", "cut"): "a connection that ends is the running streamer's",
    ("start", "stall"): "a connection that ends is the running streamer's",
    ("start", "shutdown"): "a connection that ends is the running streamer's",
    ("start", "rest_lag"): "asks for the first kline of new listings alone, which is an old one",
    ("start", "rest_void"): "asks for no aggTrades; raw capture does, in the running streamer",
    (
        "backfill",
        "rest_void",
    ): "asks for klines; for aggTrades in place of a file alone, and passes void rows over",
    ("repair_gaps", "rest_void"): "asks for klines, not for aggTrades",
    ("sync_instruments", "rest_void"): "asks for no trades",
    ("sync_instruments", "rest_lag"): "asks for no klines",
    ("sync_instruments", "rest_stale"): "asks for no klines",
    ("import", "stale_checksum"): "the file is yours; a CHECKSUM beside it is verified",
    ("import", "missing_checksum"): "the file is yours and needs none",
    ("import", "missing_day"): "there is no file",
    ("import", "late_publication"): "there is no file",
    ("import", "slow_download"): "downloads nothing",
    (
        "import",
        "cut_download",
    ): "downloads nothing; a file cut on its way to you is a truncated one",
    ("import", "download_error"): "downloads nothing",
    ("import", "listing_error"): "downloads nothing",
}

_TITLE = """\
# Fault matrix

What goes wrong at the exchange or on the way, and what each part of the platform does about it.
The faults are those of the [simulator](simulator.md), which can be told to have any of them; each
cell of this page is run by a test in `tests/integration/faults`, which holds the table to the
exchange's own candles, value by value, and sees to it that what was stored before is unharmed.

What holds of all of them: no minute is invented, nothing good is left out, and what could not be
loaded is named in the log, in a ledger (`ops.gaps`, `ops.outages`, `ops.dump_files`,
`ops.rejected_rows`) or by an exit code other than 0. The events are explained in
[operations.md](operations.md).
"""


def reason_untouched(component: Component, kind: str) -> str | None:
    """Why a fault does not reach a component; None where it does."""
    group = KINDS[kind].group
    return UNTOUCHED.get((component, group)) or UNTOUCHED_KINDS.get((component, kind))


def page() -> str:
    """The matrix as documentation."""
    parts = [_TITLE]
    for group, title in GROUPS.items():
        parts.append(f"## {title}\n")
        for name, kind in KINDS.items():
            if kind.group == group:
                parts.append(_section(name, kind.meaning))
    parts.append("## What does not reach a part\n")
    rows = [
        (COMPONENTS[component], GROUPS[group], reason)
        for (component, group), reason in UNTOUCHED.items()
    ]
    rows += [
        (COMPONENTS[component], f"`{kind}`", reason)
        for (component, kind), reason in UNTOUCHED_KINDS.items()
    ]
    parts.append(_table(("part", "faults", "because it"), rows))
    return "\n".join(parts)


def _section(name: str, meaning: str) -> str:
    rows = [
        (COMPONENTS[component], cell.happens, cell.seen, cell.todo)
        for component, cells in MATRIX.items()
        if (cell := cells.get(name)) is not None
    ]
    table = _table(("part", "what it does", "you see", "you do"), rows)
    return f"### `{name}`\n\n{meaning[0].upper()}{meaning[1:]}.\n\n{table}"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
