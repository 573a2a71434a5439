"""Carries out the strikes of a run: they overlap, but for those that hit the same."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from simulator.clock import SimulatedClock
from tests.chaos.stage.processes import StreamerProcess
from tests.chaos.stage.servers import Database
from tests.chaos.stage.strikes import Strike, Target

TICK_S = 0.02

Action = Callable[[], None]


class Blows:
    """What is down, and until when.

    Args:
        twin: a second streamer of the same symbols, started by mistake.
        check: raises where a part has ended by itself.
    """

    def __init__(
        self,
        clock: SimulatedClock,
        *,
        streamer: StreamerProcess,
        twin: StreamerProcess,
        database: Database,
        check: Action,
    ) -> None:
        self.struck: list[str] = []
        self._clock = clock
        self._check = check
        self._down: dict[Target, tuple[int, Action]] = {}
        self._actions: dict[str, tuple[Action, Action]] = {
            "kill": (streamer.kill, streamer.start),
            "terminate": (streamer.terminate, streamer.start),
            "freeze": (streamer.freeze, streamer.thaw),
            "twin": (twin.start, twin.kill),
            "postgres_kill": (database.crash, database.start),
            "failover": (database.crash_behind_standby, database.take_over),
            "long_stop": (streamer.kill, streamer.start),
            "long_outage": (database.shut_down, database.start),
            "postgres_restart": (database.shut_down, database.start),
            "postgres_hangs_up": (database.hang_up, lambda: None),
            "postgres_freeze": (database.freeze, database.thaw),
            "refuse_rows": (database.refuse_rows, database.accept_rows),
            "read_only": (
                lambda: database.set_read_only(True),
                lambda: database.set_read_only(False),
            ),
        }

    def play(self, strikes: Sequence[Strike], start_us: int, until_us: int) -> None:
        """Carry out all strikes, and let everything recover; at the end all parts are up.

        Args:
            start_us: the time that strikes count from.
            until_us: minimum end; a strike may come later, if its target was down.
        """
        due = deque(replace(one, at_us=start_us + one.at_us) for one in strikes)
        try:
            while (now_us := self._clock.now_us()) < until_us or due:
                self._raise_up(now_us)
                for _ in range(len(due)):
                    strike = due.popleft()
                    if strike.at_us > now_us or strike.target in self._down:
                        due.append(strike)
                    else:
                        self._strike(strike)
                self._check()
                time.sleep(TICK_S)
            while self._down:
                self._raise_up(self._clock.now_us())
                self._check()
                time.sleep(TICK_S)
        finally:
            self.raise_all()

    def raise_all(self) -> None:
        """Restore all parts immediately."""
        while self._down:
            _, (_, end) = self._down.popitem()
            end()

    def _strike(self, strike: Strike) -> None:
        begin, end = self._actions[strike.kind]
        begin()
        self._down[strike.target] = (self._clock.now_us() + strike.down_us, end)
        self.struck.append(strike.kind)

    def _raise_up(self, now_us: int) -> None:
        for target, (until_us, end) in list(self._down.items()):
            if now_us >= until_us:
                del self._down[target]
                end()
