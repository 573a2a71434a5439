"""Faults of frames between the market and its listeners.

A fault's window refers to a frame's due time, so a plan hits the same frames at any clock speed.
Which matching frames are hit follows from a hash of fault id, stream and due time, independent of
when clients subscribed.
"""

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from simulator.clock import MINUTE_US, SimulatedClock
from simulator.faults.plan import Fault
from simulator.market.instruments import MarketName
from simulator.market.noise import derive_key, hash_counter

Render = Callable[[int], list[str]]
Passed = tuple[int, str, Render]
Change = Callable[[str], str]
OnHit = Callable[[Fault, MarketName, str, int], None]

_SHARE_ONE = 1 << 32
_LINGER_US = MINUTE_US  # a scheduler is never so far behind
MAX_STREAMS_PER_FAULT = 50_000


@dataclass(slots=True)
class _Rule:
    """One active fault and its state per stream."""

    fault: Fault
    key: int
    threshold: int
    end_us: int | None
    max_streams: int
    latest: dict[tuple[MarketName, str], tuple[int, int]] = field(default_factory=dict)
    # The stream's key for draws, or None if the fault does not match it.
    streams: dict[tuple[MarketName, str], int | None] = field(default_factory=dict)

    def concerns(self, market: MarketName, stream: str, due_us: int) -> bool:
        fault = self.fault
        if due_us < fault.at_us or (self.end_us is not None and due_us >= self.end_us):
            return False
        return self._key(market, stream) is not None

    def _key(self, market: MarketName, stream: str) -> int | None:
        place = (market, stream)
        if place not in self.streams:
            if len(self.streams) >= self.max_streams:
                self.streams.clear()
            is_meant = market in self.fault.markets and self.fault.hits_stream(stream)
            self.streams[place] = self.key ^ derive_key(0, market, stream) if is_meant else None
        return self.streams[place]

    def picks(self, market: MarketName, stream: str, due_us: int) -> bool:
        """Whether this matching frame is hit."""
        if self.threshold >= _SHARE_ONE:
            return True
        place = (market, stream)
        latest_us, number = self.latest.get(place, (0, 0))
        number = number + 1 if latest_us == due_us else 0  # frames may share a due time
        if len(self.latest) >= self.max_streams and place not in self.latest:
            self._forget_earlier(market, due_us)
        self.latest[place] = (due_us, number)
        drawn = hash_counter(self._key(market, stream) or 0, (due_us << 16) + number)
        return drawn & (_SHARE_ONE - 1) < self.threshold

    def _forget_earlier(self, market: MarketName, due_us: int) -> None:
        """Forget earlier frames: a market's frames come in order of due time."""
        self.latest = {
            place: found
            for place, found in self.latest.items()
            if place[0] != market or found[0] >= due_us
        }


class FrameFaults:
    """Executes frame faults of all markets; the `faults` filter of a scheduler.

    Args:
        seed: determines which frames are hit.
        max_streams: streams whose state each fault keeps in memory.

    Attributes:
        is_idle: there is no fault, so frames need not be filtered.
        on_hit: called with the fault, market, stream and due time (µs) of each frame hit.
    """

    on_hit: OnHit | None = None

    def __init__(
        self, clock: SimulatedClock, *, seed: int, max_streams: int = MAX_STREAMS_PER_FAULT
    ) -> None:
        self._max_streams = max_streams
        self._clock = clock
        self._seed = seed
        self._rules: dict[str | None, _Rule] = {}
        self._hits: Counter[str | None] = Counter()
        self.is_idle = True

    # --- the engine's side

    def accept(self, fault: Fault) -> None:
        """Start matching frames against the fault's window."""
        share = fault.parameters.get("share", 1)
        self._rules[fault.id] = _Rule(
            fault,
            derive_key(self._seed, "faults", str(fault.id)),
            round(float(share or 0) * _SHARE_ONE),
            fault.end_us,
            self._max_streams,
        )
        self.is_idle = False

    def begin(self, fault: Fault) -> None:
        """Do nothing: `pass_on` compares due times with the fault's window."""

    def end(self, fault: Fault) -> None:
        """End the window now; earlier frames are hit even if the scheduler is behind."""
        rule = self._rules.get(fault.id)
        if rule is None:
            return  # the scheduler passed the window before the engine ended the fault
        now_us = self._clock.now_us()
        rule.end_us = now_us if rule.end_us is None else min(rule.end_us, now_us)

    def hits(self, fault: Fault) -> int:
        """Return the number of frames hit."""
        return self._hits[fault.id]

    def is_spent(self, _fault: Fault) -> bool:
        """Return false: the fault ends by its time."""
        return False

    # --- the scheduler's side

    def pass_on(
        self, market: MarketName, stream: str, due_us: int, render: Render, now_us: int
    ) -> Iterable[Passed]:
        """Return (due time, stream, payloads) of each frame to send instead of the given one."""
        frames: Sequence[Passed] = ((due_us, stream, render),)
        for identity, rule in tuple(self._rules.items()):
            if rule.concerns(market, stream, due_us):
                frames = self._hit(rule, market, due_us, frames)
            elif rule.end_us is not None and due_us > rule.end_us + _LINGER_US:
                del self._rules[identity]
                self.is_idle = not self._rules
        return frames

    def _hit(
        self, rule: _Rule, market: MarketName, due_us: int, frames: Sequence[Passed]
    ) -> Sequence[Passed]:
        """Apply one fault to a frame, or to the results of earlier faults."""
        if not frames or not rule.picks(market, frames[0][1], due_us):
            return frames
        made = list(
            itertools.chain.from_iterable(_EFFECTS[rule.fault.kind.name](rule.fault, *frame)
                                          for frame in frames)
        )  # fmt: skip
        if made != list(frames):
            self._hits[rule.fault.id] += 1
            if self.on_hit is not None:
                self.on_hit(rule.fault, market, frames[0][1], due_us)
        return made


# --- effects: one frame in, those to be sent out


def _duplicate(fault: Fault, due_us: int, stream: str, render: Render) -> Iterator[Passed]:
    yield due_us, stream, render
    for number in range(1, (fault.integer("copies") or 1) + 1):
        yield due_us + number * fault.span_us("delay_ms"), stream, render


def _reorder(fault: Fault, due_us: int, stream: str, render: Render) -> Iterator[Passed]:
    yield due_us + fault.span_us("delay_ms"), stream, render


def _late(fault: Fault, due_us: int, stream: str, render: Render) -> Iterator[Passed]:
    left_us = -due_us % MINUTE_US
    if 0 < left_us <= fault.span_us("within_ms"):
        due_us += left_us + fault.span_us("delay_ms")
    yield due_us, stream, render


def _drop(_fault: Fault, _due_us: int, _stream: str, _render: Render) -> Iterator[Passed]:
    return iter(())


def _kline_lag(fault: Fault, due_us: int, stream: str, render: Render) -> Iterator[Passed]:
    lag_us = fault.span_us("lag_ms") if "@kline_" in stream else 0
    yield due_us + lag_us, stream, render


def _wrong_kline(fault: Fault, due_us: int, stream: str, render: Render) -> Iterator[Passed]:
    if "@kline_" in stream:
        form = str(fault.parameters["form"])
        render = _changed(render, lambda text: wrong_kline(text, form))
    yield due_us, stream, render


def _changed(render: Render, change: Change) -> Render:
    return lambda unit_us: [_applied(change, text) for text in render(unit_us)]


def _applied(change: Change, text: str) -> str:
    try:
        return change(text)
    except (ArithmeticError, KeyError, TypeError, ValueError):
        return text  # an earlier fault left an unreadable payload


def _beside(
    fault: Fault, due_us: int, stream: str, render: Render, change: Change
) -> Iterator[Passed]:
    yield due_us, stream, _changed(render, change)
    if not fault.parameters["replaces"]:
        yield due_us, stream, render


def _void(fault: Fault, due_us: int, stream: str, render: Render) -> Iterator[Passed]:
    if stream.endswith(("@aggTrade", "@trade")):
        return _beside(fault, due_us, stream, render, void_trade)
    return iter(((due_us, stream, render),))


def _malformed(fault: Fault, due_us: int, stream: str, render: Render) -> Iterator[Passed]:
    change = _MALFORMATIONS[str(fault.parameters["form"])]
    return _beside(fault, due_us, stream, render, change)


def _unknown(fault: Fault, due_us: int, stream: str, render: Render) -> Iterator[Passed]:
    form = fault.parameters["form"]
    if form == "field":
        yield due_us, stream, _changed(render, add_field)
        return
    yield due_us, stream, _changed(render, unknown_event if form == "event" else bare_array)
    yield due_us, stream, render


_EFFECTS: dict[str, Callable[[Fault, int, str, Render], Iterator[Passed]]] = {
    "duplicate": _duplicate,
    "reorder": _reorder,
    "late": _late,
    "drop": _drop,
    "void": _void,
    "malformed": _malformed,
    "unknown": _unknown,
    "kline_lag": _kline_lag,
    "wrong_kline": _wrong_kline,
}

# --- payloads, text in and text out


def _dump(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def void_trade(text: str) -> str:
    """Set price and quantity of a trade to 0, as the exchange marks void ones; keep other frames.

    A void aggTrade has no trade ids: `f` and `l` are −1.
    """
    frame = json.loads(text)
    if not isinstance(frame, dict) or frame.get("e") not in ("aggTrade", "trade"):
        return text
    frame |= {"p": "0", "q": "0"}
    if frame["e"] == "aggTrade":
        frame |= {"f": -1, "l": -1}
        if "nq" in frame:
            frame["nq"] = "0"
    if "X" in frame:
        frame["X"] = "NA"
    return _dump(frame)


def wrong_kline(text: str, form: str) -> str:
    """Change a final kline with trades to another valid one; keep other frames.

    Args:
        form: `volume`, `close` or `trades`.
    """
    frame = json.loads(text)
    kline = frame.get("k") if isinstance(frame, dict) else None
    if not isinstance(kline, dict) or not kline.get("x") or not kline.get("n"):
        return text
    if form == "volume":
        for name in ("v", "q"):
            kline[name] = f"{2 * Decimal(kline[name]):f}"
    elif form == "close":
        kline["c"] = kline["l"] if kline["c"] != kline["l"] else kline["h"]
    else:
        kline["n"] -= 1
    return _dump(frame)


def truncate(text: str) -> str:
    """Return the first half of the text."""
    return text[: len(text) // 2]


def not_json(_text: str) -> str:
    """Return an answer that a proxy might send."""
    return "<html><body>502 Bad Gateway</body></html>"


def drop_field(text: str) -> str:
    """Remove the most important field: the price, or a kline's open time."""
    frame = json.loads(text)
    if isinstance(frame, dict):
        inner = frame.get("k")
        fields = inner if isinstance(inner, dict) else frame
        for name in ("p", "t", "b", "bids", "c", "o"):
            if fields.pop(name, None) is not None:
                break
    return _dump(frame)


def mistype(text: str) -> str:
    """Change times to text and prices to objects: JSON, but with wrong types."""
    frame = json.loads(text)
    if isinstance(frame, dict):
        inner = frame.get("k")
        fields = inner if isinstance(inner, dict) else frame
        for name in fields:
            if name in ("p", "q", "o", "c", "h", "l", "v", "b", "a"):
                fields[name] = {"value": fields[name]}
            elif name in ("T", "t", "E", "u", "f"):
                fields[name] = f"at {fields[name]}"
    return _dump(frame)


def unknown_event(text: str) -> str:
    """Return an event of an unknown type, for the same symbol and time."""
    frame = json.loads(text)
    fields = frame if isinstance(frame, dict) else {}
    return _dump(
        {"e": "solarEclipse", "E": fields.get("E", 0), "s": fields.get("s", ""), "w": [1, {}]}
    )


def bare_array(_text: str) -> str:
    """Return an array where an object is expected."""
    return "[1,2,3]"


def add_field(text: str) -> str:
    """Add a new field, as exchanges do unannounced."""
    frame = json.loads(text)
    if isinstance(frame, dict):
        frame["zz"] = {"new": True}
    return _dump(frame)


_MALFORMATIONS: dict[str, Change] = {
    "truncated": truncate,
    "not_json": not_json,
    "missing_field": drop_field,
    "wrong_type": mistype,
}
