"""Fault plans: a JSON list of entries, validated strictly, and written back unchanged.

An error names the file, entry, field, its value and the allowed values.
"""

import fnmatch
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from simulator.clock import DAY_US, MINUTE_US, SECOND_US, from_us, to_us
from simulator.faults.kinds import KINDS, REQUIRED, FaultKind, FaultParameter, Selector, Value
from simulator.market.instruments import MARKETS, MarketName

_UNITS_US = {"ms": 1_000, "s": SECOND_US, "m": MINUTE_US, "h": 60 * MINUTE_US, "d": DAY_US}
_OFFSET = re.compile(r"\+(\d{1,10}(?:\.\d{1,6})?)(ms|s|m|h|d)\Z")
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_SYMBOL = re.compile(r"[A-Z0-9_.-]{1,40}\Z")
_COMMON = ("kind", "id", "market", "at", "duration_s")
_SELECTORS: tuple[Selector, ...] = ("symbols", "streams", "endpoints", "files")
_MAX_SECONDS = 10 * 366 * 86_400


class PlanError(ValueError):
    """A plan that cannot be executed; says what is wrong, where, and what is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One entry of a plan.

    Attributes:
        at_us: simulated time, or an offset from the plan's start.
        duration_us: simulated duration; None: until it is removed.
        symbols, streams, endpoints, files: glob patterns; a match of any is hit.
        parameters: all parameters of the kind, with defaults.
    """

    kind: FaultKind
    id: str | None = None
    markets: tuple[MarketName, ...] = MARKETS
    at_us: int = 0
    is_offset: bool = True
    duration_us: int | None = None
    symbols: tuple[str, ...] = ("*",)
    streams: tuple[str, ...] = ("*",)
    endpoints: tuple[str, ...] = ("*",)
    files: tuple[str, ...] = ("*",)
    parameters: Mapping[str, Value] = field(default_factory=dict)

    @property
    def end_us(self) -> int | None:
        """When the fault ends; None: only by removal."""
        return None if self.duration_us is None else self.at_us + self.duration_us

    def placed(self, *, start_us: int, identity: str) -> "Fault":
        """Return the entry with an id and an absolute time.

        Args:
            start_us: the time that offsets count from.
        """
        at_us = self.at_us + start_us if self.is_offset else self.at_us
        return replace(self, id=identity, at_us=at_us, is_offset=False)

    def cut_short(self, until_us: int) -> "Fault":
        """Return the entry with an earlier end."""
        return replace(self, duration_us=max(1, until_us - self.at_us))

    def number(self, name: str) -> float:
        """Return a numeric parameter."""
        value = self.parameters[name]
        if not isinstance(value, int | float):
            raise TypeError(f"{name} of {self.kind.name} is {value!r}, not a number")
        return value

    def integer(self, name: str) -> int | None:
        """Return an integer parameter, or None if it is not set."""
        value = self.parameters[name]
        return None if value is None else int(value)

    def span_us(self, name: str) -> int:
        """Return a parameter in `…_ms` or `…_s` as µs."""
        unit = 1_000 if name.endswith("_ms") else SECOND_US
        return round(self.number(name) * unit)

    def hits_symbol(self, symbol: str) -> bool:
        """Whether the fault matches a symbol."""
        return matches(symbol, self.symbols)

    def hits_stream(self, stream: str) -> bool:
        """Whether the fault matches a stream, by its name and its symbol."""
        symbol = stream.partition("@")[0].upper()
        return matches(stream, self.streams) and matches(symbol, self.symbols)

    def to_json(self) -> dict[str, Any]:
        """Return the entry as in a plan file."""
        entry: dict[str, Any] = {"kind": self.kind.name}
        if self.id is not None:
            entry["id"] = self.id
        entry["market"] = self.markets[0] if len(self.markets) == 1 else "all"
        seconds = Decimal(self.at_us) / SECOND_US
        entry["at"] = f"+{seconds:f}s" if self.is_offset else _iso(self.at_us)
        if self.duration_us is not None:
            entry["duration_s"] = _plain(self.duration_us)
        for name in self.kind.selectors:
            patterns = getattr(self, name)
            if name in self.kind.required or patterns != default_patterns(self.kind, name):
                entry[name] = list(patterns)
        return entry | {key: value for key, value in self.parameters.items() if value is not None}


def matches(text: str, patterns: Sequence[str]) -> bool:
    """Whether any of the glob patterns matches."""
    return any(fnmatch.fnmatchcase(text, pattern) for pattern in patterns)


def default_patterns(kind: FaultKind, selector: Selector) -> tuple[str, ...]:
    """Return the patterns of a selector that an entry does not set."""
    match selector:
        case "streams":
            return kind.streams
        case "endpoints":
            return kind.endpoints
    return ("*",)


def _iso(time_us: int) -> str:
    return from_us(time_us).isoformat().replace("+00:00", "Z")


def _plain(span_us: int) -> int | float:
    return span_us // SECOND_US if span_us % SECOND_US == 0 else span_us / SECOND_US


# --- reading


def parse_entry(entry: object, *, where: str = "entry") -> Fault:
    """Validate one entry.

    Args:
        where: name of the entry in messages, e.g. `plan.json, entry 3`.

    Raises:
        PlanError: the first error.
    """
    if not isinstance(entry, dict):
        raise PlanError(f"{where} is {_shown(entry)}; it must be an object with a 'kind'")
    kind = _kind(entry.get("kind"), where)
    where = f"{where} ({kind.name})"
    parameters = {parameter.name: parameter for parameter in kind.parameters}
    known = {*_COMMON, *kind.selectors, *parameters} - (set() if kind.lasts else {"duration_s"})
    for name in entry:
        if name not in known:
            raise PlanError(f"{where}: no field {name!r}; allowed are {', '.join(sorted(known))}")
    at_us, is_offset = _moment(entry.get("at", "+0s"), where)
    patterns = {name: _patterns(entry, name, kind, where) for name in kind.selectors}
    return Fault(
        kind=kind,
        id=_identity(entry.get("id"), where),
        markets=_markets(entry, kind, where),
        at_us=at_us,
        is_offset=is_offset,
        duration_us=_duration(entry.get("duration_s"), where),
        parameters={
            name: _value(entry, parameter, where) for name, parameter in parameters.items()
        },
        **patterns,
    )


def parse_plan(text: str | bytes, *, name: str = "plan") -> tuple[Fault, ...]:
    """Validate a plan: a JSON list of entries, or a single one.

    Args:
        name: name of the plan in messages.

    Raises:
        PlanError: it is not JSON, or the first error of an entry.
    """
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PlanError(f"{name} is not JSON: {error}") from error
    if isinstance(entries, dict):
        return (parse_entry(entries, where=name),)
    if not isinstance(entries, list):
        raise PlanError(f"{name} is {_shown(entries)}; it must be a list of entries")
    faults = tuple(
        parse_entry(entry, where=f"{name}, entry {number}")
        for number, entry in enumerate(entries, start=1)
    )
    identities = [fault.id for fault in faults if fault.id is not None]
    twice = sorted({identity for identity in identities if identities.count(identity) > 1})
    if twice:
        raise PlanError(f"{name}: id {twice[0]!r} is used twice; each must be used once")
    return faults


def load_plan(path: Path) -> tuple[Fault, ...]:
    """Read a plan from a file.

    Raises:
        PlanError: the file cannot be read or is wrong.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise PlanError(
            f"cannot read the fault plan {path}: {error.strerror}; name a JSON file"
        ) from error
    return parse_plan(text, name=str(path))


def write_plan(faults: Sequence[Fault]) -> str:
    """Return the plan as JSON, one entry per line; `parse_plan` returns the same faults."""
    lines = ",\n".join(f"  {json.dumps(fault.to_json())}" for fault in faults)
    return f"[\n{lines}\n]\n" if faults else "[]\n"


def _shown(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _kind(name: object, where: str) -> FaultKind:
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise PlanError(f"{where}: kind is {_shown(name)}; it must be one of {', '.join(KINDS)}")
    return kind


def _identity(value: object, where: str) -> str | None:
    if value is None or (isinstance(value, str) and _ID.match(value)):
        return value
    raise PlanError(
        f"{where}: id is {_shown(value)}; it must be 1 to 64 letters, digits, '.', '_' or '-'"
    )


def _markets(entry: Mapping[str, object], kind: FaultKind, where: str) -> tuple[MarketName, ...]:
    is_series = kind.group == "series"
    is_one = is_series or kind.group == "market"
    value = entry.get("market", None if is_one else "all")
    if value == "all" and not is_one:
        return MARKETS
    for name in MARKETS:
        if value == name and not (is_series and name == "spot"):
            return (name,)
    right = "'spot', 'um' or 'cm'" if is_one else "'spot', 'um', 'cm' or 'all'"
    right = "'um' or 'cm'" if is_series else right
    raise PlanError(f"{where}: market is {_shown(value)}; it must be {right}")


def _moment(value: object, where: str) -> tuple[int, bool]:
    if isinstance(value, str):
        offset = _OFFSET.match(value)
        if offset is not None:
            offset_us = int(Decimal(offset[1]) * _UNITS_US[offset[2]])
            if offset_us > _MAX_SECONDS * SECOND_US:
                raise PlanError(f"{where}: at is {_shown(value)}; it must be within ten years")
            return offset_us, True
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
        if moment is not None:
            aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
            return to_us(aware), False
    raise PlanError(
        f"{where}: at is {_shown(value)}; it must be a time like '2026-01-31T12:00:00Z' or an "
        "offset like '+90s', '+1.5m', '+2h'"
    )


def _duration(value: object, where: str) -> int | None:
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and 0 < value <= _MAX_SECONDS:  # type: ignore[operator]
        return max(1, round(value * SECOND_US))  # type: ignore[operator]
    raise PlanError(
        f"{where}: duration_s is {_shown(value)}; it must be a number of simulated seconds "
        "above 0, or left out to last until it is removed"
    )


def _patterns(
    entry: Mapping[str, object], name: Selector, kind: FaultKind, where: str
) -> tuple[str, ...]:
    value = entry.get(name)
    if value is None:
        if name in kind.required:
            raise PlanError(f"{where}: {name} is missing; name at least one, e.g. ['BTCUSDT']")
        return default_patterns(kind, name)
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not listed or not all(
        isinstance(one, str) and one for one in listed
    ):  # fmt: skip
        raise PlanError(
            f"{where}: {name} is {_shown(value)}; it must be a pattern like 'BTC*' or a list of "
            "patterns"
        )
    if name == "symbols":
        listed = [one.upper() for one in listed]
        if kind.name == "new_listing":
            wrong = [one for one in listed if not _SYMBOL.match(one)]
            if wrong:
                raise PlanError(
                    f"{where}: symbols holds {_shown(wrong[0])}; a new listing needs full names, "
                    "e.g. 'NEWUSDT'"
                )
    return tuple(dict.fromkeys(listed))


def _value(entry: Mapping[str, object], parameter: FaultParameter, where: str) -> Value:
    value = entry.get(parameter.name, parameter.default)
    if value is REQUIRED:
        raise PlanError(f"{where}: {parameter.name} is missing: {parameter.meaning}")
    if value is None and parameter.default is None:
        return None
    match parameter.type:
        case "boolean":
            if isinstance(value, bool):
                return value
            right = "true or false"
        case "text":
            if isinstance(value, str) and value in parameter.choices:
                return value
            right = f"one of {', '.join(parameter.choices)}"
        case "number" | "integer":
            wanted = int if parameter.type == "integer" else int | float
            if (
                isinstance(value, wanted)
                and not isinstance(value, bool)
                and parameter.lowest <= value <= parameter.highest
            ):
                return value
            noun = "an integer" if parameter.type == "integer" else "a number"
            right = f"{noun} from {parameter.lowest:g} to {parameter.highest:g}"
    raise PlanError(
        f"{where}: {parameter.name} is {_shown(value)}; it must be {right} ({parameter.meaning})"
    )
