"""Executes fault plans by the exchange's clock.

The engine decides when a fault begins and ends; the `FaultActor` of its group executes it.
Everything runs in the event loop. Calls from other threads run in the loop and wait for the result.
"""

import asyncio
import heapq
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import structlog

from simulator.clock import SimulatedClock
from simulator.faults.kinds import FaultGroup
from simulator.faults.plan import Fault, PlanError, parse_entry, write_plan

_MAX_SLEEP_S = 0.25  # a replay's clock moves with its frames, not with time
_MAX_FAULTS = 20_000
_HANDOVER_TIMEOUT_S = 30.0

State = Literal["scheduled", "active", "finished", "removed"]
Entries = Fault | Mapping[str, Any] | Sequence[Fault | Mapping[str, Any]]
Result = TypeVar("Result")


class FaultActor(Protocol):
    """Executes the faults of one group."""

    def accept(self, fault: Fault) -> None:
        """Prepare a fault before its time. Raises PlanError if it cannot be executed."""

    def begin(self, fault: Fault) -> None:
        """Start the fault."""

    def end(self, fault: Fault) -> None:
        """End the fault after its time or its removal; also called if it never began."""

    def hits(self, fault: Fault) -> int:
        """Return the hits so far: connections, frames, requests or symbols."""

    def is_spent(self, fault: Fault) -> bool:
        """Whether the fault cannot hit again, although its time is not over."""


@dataclass(slots=True)
class _Entry:
    fault: Fault
    actor: FaultActor
    state: State = "scheduled"
    has_begun: bool = False

    @property
    def identity(self) -> str:
        return str(self.fault.id)

    @property
    def is_over(self) -> bool:
        return self.state in ("finished", "removed")

    @property
    def never_began(self) -> bool:
        return self.state == "removed" and not self.has_begun


class FaultEngine:
    """All faults of one exchange: scheduled, active and past.

    Args:
        actors: by group; faults of other groups are refused.
    """

    def __init__(self, clock: SimulatedClock, actors: Mapping[FaultGroup, FaultActor]) -> None:
        self._clock = clock
        self._actors = actors
        self._entries: dict[str, _Entry] = {}
        self._due: list[tuple[int, int, _Entry, bool]] = []
        self._order = itertools.count()
        self._numbers = itertools.count(1)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()
        self._log = structlog.get_logger("simulator")

    # --- the three ways in

    def add(self, entries: Entries) -> list[str]:
        """Schedule one or several entries, all or none, and return their ids.

        Offsets count from now. Entries that are due immediately have begun when this returns.

        Raises:
            PlanError: an entry is wrong, or cannot be executed.
        """
        listed = list(entries) if isinstance(entries, Sequence) else [entries]
        faults = [
            entry
            if isinstance(entry, Fault)
            else parse_entry(entry, where="entry" if len(listed) == 1 else f"entry {number}")
            for number, entry in enumerate(listed, start=1)
        ]
        return self._in_loop(lambda: self._add(faults))

    def remove(self, identity: str) -> None:
        """End a fault, or cancel it before it begins.

        Raises:
            KeyError: unknown id.
            PlanError: the fault has changed the market, whose past cannot change.
        """
        self._in_loop(lambda: self._remove(identity))

    def listed(self) -> list[dict[str, Any]]:
        """Return all entries in the form of a plan, with `state` and `hits`."""
        return self._in_loop(self._listed)

    def plan(self) -> str:
        """Return planned and past faults with absolute times, to be replayed from a file.

        A fault removed while active lasts until its removal; one removed before it began is
        omitted.
        """
        return self._in_loop(
            lambda: write_plan(
                [entry.fault for entry in self._entries.values() if not entry.never_began]
            )
        )

    # --- in the loop

    def _add(self, faults: Sequence[Fault]) -> list[str]:
        self._forget_old(len(faults))
        now_us = self._clock.now_us()
        accepted: list[_Entry] = []
        try:
            for fault in faults:
                accepted.append(self._accept(fault, now_us))
        except PlanError as error:
            for entry in accepted:
                entry.actor.end(entry.fault)
                del self._entries[entry.identity]
            if len(faults) > 1:
                raise PlanError(f"entry {len(accepted) + 1}: {error}") from error
            raise
        for entry in accepted:
            self._push(entry.fault.at_us, entry, begins=True)
            self._log.info("fault_added", id=entry.fault.id, kind=entry.fault.kind.name)
        self._advance()
        self._changed.set()
        return [entry.identity for entry in accepted]

    def _accept(self, fault: Fault, now_us: int) -> _Entry:
        identity = fault.id
        if identity is None:
            identity = next(
                name for name in (f"f{n}" for n in self._numbers) if name not in self._entries
            )
        if identity in self._entries:
            raise PlanError(f"id {identity!r} is in use; leave it out or choose another")
        placed = fault.placed(start_us=now_us, identity=identity)
        actor = self._actors.get(placed.kind.group)
        if actor is None:
            raise PlanError(
                f"{placed.kind.name} needs a simulated market; a replay has only faults of the "
                f"groups {', '.join(self._actors)}"
            )
        actor.accept(placed)
        entry = self._entries[identity] = _Entry(placed, actor)
        return entry

    def _remove(self, identity: str) -> None:
        entry = self._entries[identity]
        if entry.is_over:
            if entry.state == "finished" and entry.fault.kind.group == "market":
                raise PlanError(
                    f"{entry.fault.kind.name} {identity!r} has happened; the served past "
                    "cannot change"
                )
            return
        entry.actor.end(entry.fault)
        if entry.has_begun:
            entry.fault = entry.fault.cut_short(self._clock.now_us())
        entry.state = "removed"
        self._forget_due()
        self._log.info("fault_removed", id=identity)

    def _listed(self) -> list[dict[str, Any]]:
        spent = [
            entry
            for entry in self._entries.values()
            if entry.state == "active" and entry.actor.is_spent(entry.fault)
        ]
        for entry in spent:
            self._finish(entry)
        if spent:
            self._forget_due()
        return [
            entry.fault.to_json() | {"state": entry.state, "hits": entry.actor.hits(entry.fault)}
            for entry in self._entries.values()
        ]

    def _forget_old(self, coming: int) -> None:
        over = [name for name, entry in self._entries.items() if entry.is_over]
        excess = len(self._entries) + coming - _MAX_FAULTS
        if excess > len(over):
            raise PlanError(f"more than {_MAX_FAULTS} faults at once; remove some first")
        for name in over[: max(0, excess)]:
            del self._entries[name]

    def _push(self, time_us: int, entry: _Entry, *, begins: bool) -> None:
        heapq.heappush(self._due, (time_us, next(self._order), entry, begins))

    def _forget_due(self) -> None:
        """Remove scheduled begins and ends of removed faults."""
        self._due = [due for due in self._due if not due[2].is_over]
        heapq.heapify(self._due)

    def _advance(self) -> None:
        """Begin and end the faults that are due."""
        now_us = self._clock.now_us()
        while self._due and self._due[0][0] <= now_us:
            _, _, entry, begins = heapq.heappop(self._due)
            if entry.is_over:
                continue
            if begins:
                self._begin(entry)
            else:
                self._finish(entry)

    def _finish(self, entry: _Entry) -> None:
        entry.actor.end(entry.fault)
        entry.state = "finished"
        self._log.info("fault_ended", id=entry.fault.id, kind=entry.fault.kind.name)

    def _begin(self, entry: _Entry) -> None:
        fault = entry.fault
        self._log.info("fault_begun", id=fault.id, kind=fault.kind.name)
        entry.state, entry.has_begun = "active", True
        entry.actor.begin(fault)
        if not fault.kind.lasts:
            entry.state = "finished"
        elif fault.end_us is not None:
            self._push(fault.end_us, entry, begins=False)

    def attach(self) -> None:
        """Bind the engine to the running loop."""
        self._loop = asyncio.get_running_loop()

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            self._advance()
            left_s = _MAX_SLEEP_S
            if self._due:
                left_s = min(left_s, self._clock.seconds_until(self._due[0][0]))
            self._changed.clear()
            try:
                async with asyncio.timeout(max(left_s, 0.0005)):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _in_loop(self, function: Callable[[], Result]) -> Result:
        loop = self._loop
        if loop is None or loop is _running_loop():
            return function()

        async def call() -> Result:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), loop).result(_HANDOVER_TIMEOUT_S)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
