"""A cell of the fault matrix, and its words in the documentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Component = Literal["streamer", "start", "backfill", "repair_gaps", "sync_instruments", "import"]

COMPONENTS: dict[Component, str] = {
    "streamer": "the running streamer (`candelabra stream`)",
    "start": "the streamer's start",
    "backfill": "`candelabra backfill` and the tasks of `backfill_history`",
    "repair_gaps": "the DAG `repair_gaps`",
    "sync_instruments": "the DAG `sync_instruments`",
    "import": "`candelabra import`",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Reaction of a component to a fault.

    Attributes:
        happens: in a sentence for users.
        events: log events that occur each time.
        verdicts: possible verdicts of the file in `ops.dump_files`.
        exit_code: of the command; None if there is none.
        says: a part of the message on standard error.
        todo: what a user has to do.
    """

    happens: str
    events: tuple[str, ...] = ()
    verdicts: tuple[str, ...] = ()
    exit_code: int | None = None
    says: str | None = None
    todo: str = "nothing"

    @property
    def seen(self) -> str:
        """Where a user sees it."""
        parts = [", ".join(f"`{event}`" for event in self.events)] if self.events else []
        if self.verdicts:
            found = " or ".join(f"`{verdict}`" for verdict in self.verdicts)
            parts.append(f"`ops.dump_files`: {found}")
        if self.exit_code is not None:
            parts.append(f"exit code {self.exit_code}")
        if self.says is not None:
            parts.append(f"“{self.says}”")
        return "; ".join(parts) or "–"
