"""Faults of REST and of the dump site: translates plan entries into the servers' rules."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Generic

from simulator.dumps import faults as dump
from simulator.faults.plan import Fault, PlanError, matches
from simulator.http.fault_rules import FaultRules, Rule
from simulator.market.instruments import MarketName
from simulator.rest import faults as rest

_ROOTS: dict[MarketName, str] = {
    "spot": "data/spot",
    "um": "data/futures/um",
    "cm": "data/futures/cm",
}
_CADENCES = {"truncated_day": "daily", "missing_day": "daily", "monthly_differs": "monthly"}


class RuleFaults(Generic[Rule]):
    """Executes faults as rules that are added at their time and removed at their end.

    Args:
        rules_of: returns the rules of an entry; raises PlanError if it cannot.
        begins_early: whether a fault's rules are needed before its time.
    """

    def __init__(
        self,
        board: FaultRules[Rule],
        rules_of: Callable[[Fault], Sequence[Rule]],
        *,
        begins_early: Callable[[Fault], bool] = lambda _fault: False,
    ) -> None:
        self._board = board
        self._rules_of = rules_of
        self._begins_early = begins_early
        self._active: dict[str | None, list[int]] = {}
        self._hits: Counter[str | None] = Counter()

    def accept(self, fault: Fault) -> None:
        """Check that the fault's rules can be made."""
        rules = self._rules_of(fault)
        if self._begins_early(fault):
            self._active[fault.id] = [self._board.add(rule) for rule in rules]

    def begin(self, fault: Fault) -> None:
        """Add the fault's rules."""
        if fault.id not in self._active:
            self._active[fault.id] = [self._board.add(rule) for rule in self._rules_of(fault)]

    def end(self, fault: Fault) -> None:
        """Remove the fault's rules."""
        for rule_id in self._active.pop(fault.id, ()):
            self._hits[fault.id] += self._board.remove(rule_id)

    def hits(self, fault: Fault) -> int:
        """Return the number of requests or files hit."""
        active = self._active.get(fault.id, ())
        current = sum(rule.hits for rule in self._board.active() if rule.rule_id in active)
        return self._hits[fault.id] + current

    def is_spent(self, fault: Fault) -> bool:
        """Whether all its rules have reached their maximum number of hits."""
        active = self._active.get(fault.id, ())
        return bool(active) and all(
            rule.is_spent for rule in self._board.active() if rule.rule_id in active
        )


# --- REST


def rest_rules(fault: Fault) -> list[rest.RestRule]:
    """Return the rules of a REST entry: one per pattern of symbols and endpoints."""
    market = fault.markets[0] if len(fault.markets) == 1 else None
    times = fault.integer("times") if "times" in fault.parameters else None
    return [
        rest.RestRule(effect=effect, market=market, endpoint=endpoint, symbol=symbol, times=times)
        for effect in _rest_effects(fault)
        for endpoint in _endpoints(fault)
        for symbol in fault.symbols
    ]


def _endpoints(fault: Fault) -> tuple[str, ...]:
    """Return the endpoint patterns; only aggTrades can have void rows."""
    if fault.kind.name != "rest_void":
        return fault.endpoints
    if not matches("aggTrades", fault.endpoints):
        raise PlanError(
            f"rest_void: endpoints is {list(fault.endpoints)}; only 'aggTrades' can have void rows"
        )
    return ("aggTrades",)


def _rest_effects(fault: Fault) -> Iterator[rest.RestEffect]:
    match fault.kind.name:
        case "rest_lag":
            yield rest.KlineLag(lag_us=fault.span_us("kline_lag_ms"))
            yield rest.TradeLag(lag_us=fault.span_us("trade_lag_ms"))
        case "slow_rest":
            yield rest.DelayAnswer(seconds=fault.number("delay_s"))
        case "rest_error":
            wait_s = fault.parameters["retry_after_s"]
            yield rest.RefuseRequest(
                status=fault.integer("status") or 0,
                retry_after_s=None if wait_s is None else math.ceil(float(wait_s)),
            )
        case "rest_malformed":
            is_cut = fault.parameters["form"] == "truncated"
            yield rest.TruncateBody() if is_cut else rest.MalformBody()
        case "rest_cut":
            yield rest.AbortConnection()
        case "rest_stale":
            yield rest.DropLastRows(rows=fault.integer("rows") or 1)
        case "rest_void":
            yield rest.AddVoidRows(rows=fault.integer("rows") or 1)


# --- dumps


def dump_rules(fault: Fault) -> list[dump.DumpRule]:
    """Return the rules of a dump entry: one per path pattern."""
    times = fault.integer("times") if "times" in fault.parameters else None
    effect = _dump_effect(fault)
    return [dump.DumpRule(effect=effect, path=path, times=times) for path in _paths(fault)]


def _paths(fault: Fault) -> list[str]:
    """Return globs over whole paths of zips."""
    if fault.kind.name == "listing_error":
        return ["*"]
    if fault.symbols != ("*",) and fault.files != ("*",):
        raise PlanError(
            f"{fault.kind.name} has both symbols and files; use one of them, as file names "
            "contain the symbol"
        )
    roots = [_ROOTS[name] for name in fault.markets] if len(fault.markets) == 1 else ["*"]
    cadence = _CADENCES.get(fault.kind.name)
    if fault.files != ("*",):
        return [
            f"{root}/{pattern}" if pattern.startswith("*") and root != "*" else pattern
            for root in roots
            for pattern in fault.files
        ]
    return [
        f"{root}/{cadence}/*/{symbol}/*" if cadence else f"{root}/*/{symbol}/*"
        for root in roots
        for symbol in fault.symbols
    ]


def _dump_effect(fault: Fault) -> dump.DumpEffect:
    rows = fault.integer("rows") or 1 if "rows" in fault.parameters else 1
    fits = bool(fault.parameters.get("checksum_fits"))
    status = fault.integer("status") or 503 if "status" in fault.parameters else 503
    match fault.kind.name:
        case "corrupt_zip":
            return dump.CorruptZip(checksum_fits=fits)
        case "truncated_zip":
            return dump.TruncateZip(checksum_fits=fits)
        case "stale_checksum":
            return dump.StaleChecksum()
        case "missing_checksum":
            return dump.MissingChecksum()
        case "truncated_day":
            return dump.DropRows(rows=rows)
        case "missing_day":
            return dump.MissingFile()
        case "late_publication":
            return dump.LatePublication(delay_us=max(1, fault.span_us("delay_s")))
        case "reissued":
            return dump.ReissueFile(
                at_us=fault.at_us,
                change=dump.AlterRows(rows=rows),
                is_repair=bool(fault.parameters["is_repair"]),
            )
        case "monthly_differs":
            return dump.AlterRows(rows=rows)
        case "slow_download":
            return dump.SlowDownload(seconds=fault.number("delay_s"))
        case "cut_download":
            return dump.AbortDownload()
        case "download_error":
            return dump.RefuseFile(status=status)
        case "listing_error":
            return dump.RefuseListing(status=status)
    raise PlanError(f"{fault.kind.name} is not a fault of dumps")
