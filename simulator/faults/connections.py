"""Faults of connections: cut, stall, shutdown, refused connects."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping

from simulator.clock import SimulatedClock
from simulator.faults.plan import Fault
from simulator.market.instruments import MarketName
from simulator.streams.connections import ClientConnection, StreamServer

_MAX_GRACE_S = 86_400.0


class ConnectionFaults:
    """Executes connection faults on the WebSocket servers."""

    def __init__(self, servers: Mapping[MarketName, StreamServer], clock: SimulatedClock) -> None:
        self._servers = servers
        self._clock = clock
        self._hits: Counter[str | None] = Counter()
        self._stalled: dict[str | None, list[ClientConnection]] = {}
        self._stalled_us: dict[str | None, dict[MarketName, int]] = {}
        self._refusing: dict[str | None, Fault] = {}

    def accept(self, fault: Fault) -> None:
        """Accept any connection fault."""

    def begin(self, fault: Fault) -> None:
        """Hit the current connections."""
        if fault.kind.name == "refuse":
            self._refusing[fault.id] = fault
            self._apply_refusals()
            return
        chosen = list(self._chosen(fault))
        self._hits[fault.id] += len(chosen)
        match fault.kind.name:
            case "cut":
                for connection in chosen:
                    connection.abort("cut")
            case "stall":
                for connection in chosen:
                    connection.stall(None)
                self._stalled[fault.id] = chosen
                self._stalled_us[fault.id] = {
                    name: self._servers[name].hub.sent_until_us
                    for name in fault.markets
                    if name in self._servers
                }
            case "shutdown":
                grace_s = self._clock.real_seconds(fault.span_us("grace_s"))
                for connection in chosen:
                    connection.announce_shutdown(
                        min(grace_s, _MAX_GRACE_S) if math.isfinite(grace_s) else 0
                    )

    def end(self, fault: Fault) -> None:
        """Resume stalled connections and stop refusing new ones."""
        for connection in self._stalled.pop(fault.id, ()):
            connection.resume()
        for name, from_us in self._stalled_us.pop(fault.id, {}).items():
            server = self._servers[name]
            server.withheld_us.append((from_us, server.hub.sent_until_us))
        if fault.kind.name == "refuse":
            self._hits[fault.id] = self.hits(fault)
            self._refusing.pop(fault.id, None)
            self._apply_refusals()

    def hits(self, fault: Fault) -> int:
        """Return the number of connections hit."""
        turned_away = sum(
            self._servers[name].refused[fault.id]
            for name in fault.markets
            if fault.id in self._refusing and name in self._servers
        )
        return self._hits[fault.id] + turned_away

    def is_spent(self, _fault: Fault) -> bool:
        """Return false: the fault ends by its time."""
        return False

    def _chosen(self, fault: Fault) -> Iterator[ClientConnection]:
        for name in fault.markets:
            server = self._servers.get(name)
            for connection in tuple(server.connections) if server is not None else ():
                if fault.streams == ("*",) or any(map(fault.hits_stream, connection.streams)):
                    yield connection

    def _apply_refusals(self) -> None:
        """Apply the latest refusal of each server."""
        for name, server in self._servers.items():
            server.refusal = None
            for identity, fault in self._refusing.items():
                if name in fault.markets:
                    server.refusal = (identity, fault.integer("status"))
