"""Random fault plans: a seed determines what goes wrong and when.

The span is divided into equal parts with one fault each, so the rate is met closely. A drawn plan
is an ordinary one: written to a file, it can be replayed and shortened to isolate a bug.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from simulator.clock import SECOND_US
from simulator.faults.kinds import KINDS, FaultKind
from simulator.faults.plan import Fault, PlanError, parse_entry
from simulator.market.instruments import MarketName
from simulator.market.noise import derive_key, hash_counter

_HOUR_US = 3_600 * SECOND_US
_MAX_FAULTS = 10_000
_FOR_GOOD: Final = ("delisting", "new_listing", "ticker_reuse")
# Minimum and maximum duration of a fault in simulated seconds.
_DURATIONS_S: Final = {
    "connection": (5, 90), "frame": (10, 180), "market": (90, 900), "rest": (10, 180),
    "dump": (600, 14_400), "series": (600, 14_400),
}  # fmt: skip
_STATUSES: Final = (500, 502, 503, 504, 429)
Item = TypeVar("Item")


class _Draws:
    """A sequence of numbers determined by a seed."""

    def __init__(self, seed: int) -> None:
        self._key = derive_key(seed, "fault plan")
        self._number = 0

    def below(self, bound: int) -> int:
        self._number += 1
        return (hash_counter(self._key, self._number) >> 11) * bound >> 53

    def between(self, lowest: int, highest: int) -> int:
        return lowest + self.below(highest - lowest + 1)

    def one_of(self, items: Sequence[Item]) -> Item:
        return items[self.below(len(items))]


def chosen_kinds(names: Iterable[str]) -> tuple[FaultKind, ...]:
    """Return kinds by name or group; without names, all that keep the listed symbols.

    Raises:
        PlanError: a name is neither a kind nor a group.
    """
    wanted = tuple(names)
    if not wanted:
        return tuple(kind for kind in KINDS.values() if kind.name not in _FOR_GOOD)
    groups = {kind.group for kind in KINDS.values()}
    for name in wanted:
        if name not in KINDS and name not in groups:
            raise PlanError(
                f"{name!r} is not a kind of fault; use one of the groups "
                f"{', '.join(sorted(groups))} or of {', '.join(KINDS)}"
            )
    return tuple(kind for kind in KINDS.values() if kind.name in wanted or kind.group in wanted)


def draw_plan(
    seed: int,
    *,
    rate_per_h: float,
    span_us: int,
    symbols: Mapping[MarketName, Sequence[str]],
    kinds: Sequence[FaultKind],
) -> tuple[Fault, ...]:
    """Draw a plan with offsets from its start.

    Args:
        rate_per_h: faults per simulated hour.
        span_us: simulated time that the plan covers.
        symbols: listed symbols by market; a market without symbols is skipped if another has some.

    Raises:
        PlanError: the plan would have too many faults, or there is nothing to hit.
    """
    count = round(rate_per_h * span_us / _HOUR_US)
    if count > _MAX_FAULTS:
        raise PlanError(
            f"{rate_per_h:g} faults per hour make {count} in the span; lower the rate or the span "
            f"to at most {_MAX_FAULTS}"
        )
    markets = {name: list(listed) for name, listed in symbols.items() if listed}
    markets = markets or {name: [] for name in symbols}  # a replay has no listed symbols
    if not markets or not kinds:
        raise PlanError("a random plan needs a market and kinds of faults; there are none")
    draws = _Draws(seed)
    faults: list[Fault] = []
    halted_until_us: dict[tuple[MarketName, str], int] = {}
    for number in range(count):
        begin_us, end_us = number * span_us // count, (number + 1) * span_us // count
        at_us = draws.between(begin_us, end_us - 1)
        entry = _entry(draws, draws.one_of(kinds), markets, number)
        if entry is None:
            continue
        seconds, rest_us = divmod(at_us, SECOND_US)
        at = f"+{seconds}.{rest_us:06d}s"
        fault = parse_entry(entry | {"at": at, "id": f"r{seed}-{number + 1}"})
        if fault.kind.name == "halt":
            place = (fault.markets[0], fault.symbols[0])
            if halted_until_us.get(place, 0) >= at_us:
                continue  # a halt within another would have no effect
            halted_until_us[place] = fault.end_us or 0
        faults.append(fault)
    return tuple(faults)


def _entry(
    draws: _Draws, kind: FaultKind, markets: dict[MarketName, list[str]], number: int
) -> dict[str, Any] | None:
    """Return one entry; None if no symbol is left to hit."""
    fitting = [one for one in sorted(markets) if kind.group != "series" or one != "spot"]
    if not fitting or (kind.group == "series" and not any(markets[one] for one in fitting)):
        return None
    name = draws.one_of(fitting)
    entry: dict[str, Any] = {"kind": kind.name, "market": name}
    if kind.group == "market":
        listed = markets[name]
        if not listed:
            return None
        symbol = draws.one_of(listed)
        if kind.name == "new_listing":
            symbol = f"NEW{number + 1}{'USD_PERP' if name == 'cm' else 'USDT'}"
        elif kind.name in _FOR_GOOD:
            listed.remove(symbol)  # no further fault of this symbol is certain to be possible
        entry["symbols"] = [symbol]
    elif "symbols" in kind.selectors and markets[name] and draws.below(2):
        entry["symbols"] = [draws.one_of(markets[name])]
    if kind.lasts:
        entry["duration_s"] = draws.between(*_DURATIONS_S[kind.group])
    return entry | dict(_parameters(draws, kind))


def _parameters(draws: _Draws, kind: FaultKind) -> Iterator[tuple[str, Any]]:
    for parameter in kind.parameters:
        if parameter.choices:
            yield parameter.name, draws.one_of(parameter.choices)
        elif parameter.type == "boolean":
            yield parameter.name, bool(draws.below(2))
        elif parameter.name == "share":
            yield parameter.name, draws.between(1, 30) / 100
        elif parameter.name == "times":
            yield parameter.name, draws.between(1, 4)
        elif parameter.name == "status" and kind.group != "connection":
            yield parameter.name, draws.one_of(_STATUSES)
        elif parameter.name == "pause_s":
            yield parameter.name, draws.between(60, 3_600)
