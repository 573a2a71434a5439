"""Faults of derivative series: funding, open interest, liquidations, and rows served wrongly.

Another interval, missing settlements, negative open interest and added liquidations are changes of
the market, only of its future. Lags and wrong rows are rules of REST and of the dump site.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from simulator.clock import SECOND_US, SimulatedClock
from simulator.dumps import faults as dump
from simulator.faults.market import PAST_TOLERANCE_S, Reschedule
from simulator.faults.plan import Fault, PlanError
from simulator.market.derivatives.funding import IntervalChange
from simulator.market.derivatives.liquidations import Liquidation
from simulator.market.derivatives.series import DerivativeSeries
from simulator.market.instruments import MarketName
from simulator.market.market import SimulatedMarket
from simulator.rest import faults as rest

_FOREVER_US = 1 << 62
_ENDPOINTS = (
    "fundingRate", "openInterestHist", "topLongShort*Ratio", "globalLongShortAccountRatio",
    "takerlongshortRatio", "basis", "markPriceKlines", "indexPriceKlines", "premiumIndexKlines",
)  # fmt: skip
_FILES = ("fundingRate", "metrics", "markPriceKlines", "indexPriceKlines", "premiumIndexKlines")
_IN_MARKET = ("funding_interval", "missing_settlement", "negative_open_interest", "liquidation")
Change = IntervalChange | Liquidation | tuple[int, int]


@dataclass(slots=True)
class _Applied:
    """What one fault did: changes by symbol, or rules by their servers."""

    fault: Fault
    changes: dict[str, Change]
    rest_rules: list[int]
    dump_rules: list[int]
    hits: int = 0


class SeriesFaults:
    """Executes faults of derivative series.

    Args:
        reschedule: by market, regenerates frames that were made in advance.
    """

    def __init__(
        self,
        markets: Mapping[MarketName, SimulatedMarket],
        clock: SimulatedClock,
        *,
        reschedule: Mapping[MarketName, Reschedule],
        rest_faults: rest.RestFaults,
        dump_faults: dump.DumpFaults,
    ) -> None:
        self._markets = markets
        self._clock = clock
        self._reschedule = reschedule
        self._rest = rest_faults
        self._dump = dump_faults
        self._applied: dict[str | None, _Applied] = {}
        self._begun: set[str | None] = set()

    def accept(self, fault: Fault) -> None:
        """Change the future of the series, or check that the rules can be made."""
        applied = _Applied(fault, {}, [], [])
        if fault.kind.name in _IN_MARKET:
            now_us = self._clock.now_us()
            tolerance_us = int(PAST_TOLERANCE_S * max(1.0, self._clock.speed) * SECOND_US)
            if fault.at_us < now_us - tolerance_us:
                late_s = (now_us - fault.at_us) / SECOND_US
                raise PlanError(
                    f"{fault.kind.name}: at is {late_s:.1f} s in the exchange's past; it must be "
                    "in the future, e.g. '+60s'"
                )
            from_us = max(fault.at_us, now_us)
            applied.changes = {
                symbol: _change(fault, self._series(fault, symbol), from_us)
                for symbol in self._symbols(fault)
            }
        self._applied[fault.id] = applied
        self._set(fault)

    def begin(self, fault: Fault) -> None:
        """Add the fault's rules; changes of the market are there already."""
        self._begun.add(fault.id)
        applied = self._applied[fault.id]
        applied.rest_rules = [self._rest.add(rule) for rule in _rest_rules(fault)]
        applied.dump_rules = [self._dump.add(rule) for rule in _dump_rules(fault)]

    def end(self, fault: Fault) -> None:
        """Remove the rules, and undo what has not happened yet."""
        applied = self._applied.get(fault.id)
        if applied is None:
            return
        applied.hits += sum(self._rest.remove(rule_id) for rule_id in applied.rest_rules)
        applied.hits += sum(self._dump.remove(rule_id) for rule_id in applied.dump_rules)
        applied.rest_rules, applied.dump_rules = [], []
        if fault.id not in self._begun:
            applied.changes = {}
        elif fault.end_us is None or self._clock.now_us() < fault.end_us:
            now_us = self._clock.now_us()
            applied.changes = {
                symbol: (change[0], max(now_us, change[0] + 1))
                if isinstance(change, tuple) and len(change) == 2
                and not isinstance(change, IntervalChange)
                else change
                for symbol, change in applied.changes.items()
            }  # fmt: skip
        self._set(fault)

    def hits(self, fault: Fault) -> int:
        """Return the number of symbols, requests or files hit."""
        applied = self._applied.get(fault.id)
        if applied is None or fault.id not in self._begun:
            return 0
        current = sum(
            rule.hits for rule in self._rest.active() if rule.rule_id in applied.rest_rules
        ) + sum(rule.hits for rule in self._dump.active() if rule.rule_id in applied.dump_rules)
        return len(applied.changes) + applied.hits + current

    def is_spent(self, _fault: Fault) -> bool:
        """Return false: the fault ends by its time."""
        return False

    def _symbols(self, fault: Fault) -> list[str]:
        market = self._markets[fault.markets[0]]
        needs_funding = fault.kind.name in ("funding_interval", "missing_settlement")
        found = [
            one.symbol
            for one in market.listed(fault.at_us)
            if fault.hits_symbol(one.symbol) and (one.has_funding or not needs_funding)
        ]
        if not found:
            some = ", ".join(list(market)[:10])
            raise PlanError(
                f"{fault.kind.name}: no contract of {fault.markets[0]} matches "
                f"{', '.join(fault.symbols)}; there are {some}"
            )
        return found

    def _series(self, fault: Fault, symbol: str) -> DerivativeSeries:
        return self._markets[fault.markets[0]].derivatives(symbol)

    def _set(self, fault: Fault) -> None:
        """Give the series of the fault's market all changes of faults of its kind."""
        if fault.kind.name not in _IN_MARKET:
            return
        name = fault.markets[0]
        by_symbol: dict[str, list[Change]] = {}
        for applied in self._applied.values():
            if applied.fault.kind == fault.kind and applied.fault.markets[0] == name:
                for symbol, change in applied.changes.items():
                    by_symbol.setdefault(symbol, []).append(change)
        for symbol in self._markets[name]:
            changes = tuple(sorted(by_symbol.get(symbol, ())))
            _SETTERS[fault.kind.name](self._series(fault, symbol), changes)
        self._reschedule[name](self._clock.now_us())


def _set_negative(series: DerivativeSeries, changes: tuple[tuple[int, int], ...]) -> None:
    series.negative = changes


def _set_injected(series: DerivativeSeries, changes: tuple[Liquidation, ...]) -> None:
    series.injected = changes


_SETTERS: dict[str, Callable[..., None]] = {
    "funding_interval": DerivativeSeries.set_intervals,
    "missing_settlement": DerivativeSeries.set_missing,
    "negative_open_interest": _set_negative,
    "liquidation": _set_injected,
}


def _change(fault: Fault, series: DerivativeSeries, from_us: int) -> Change:
    match fault.kind.name:
        case "funding_interval":
            return IntervalChange(from_us, fault.integer("hours") or 1)
        case "liquidation":
            instrument = series.history.instrument
            units = round(fault.number("quantity") * 10**instrument.quantity_decimals)
            quantity = max(1, units // instrument.step) * instrument.step
            is_sell = fault.parameters["side"] == "SELL"
            return series.make_liquidation(from_us, is_sell=is_sell, quantity=quantity)
    return (from_us, _FOREVER_US if fault.end_us is None else fault.end_us)


def _rest_rules(fault: Fault) -> list[rest.RestRule]:
    effect: rest.RestEffect
    # lags are looked up by the last part of the path
    prefix: tuple[str, ...] = ("", "futures/data/")
    rows = fault.integer("rows") or 1 if "rows" in fault.parameters else 1
    match fault.kind.name:
        case "series_lag":
            effect, prefix = rest.SeriesLag(lag_us=fault.span_us("lag_s")), ("",)
        case "missing_rows":
            effect = rest.LoseRows(rows=rows)
        case "duplicate_rows":
            effect = rest.RepeatRows(rows=rows)
        case _:
            return []
    return [
        rest.RestRule(
            effect=effect, market=fault.markets[0], endpoint=f"{start}{endpoint}", symbol=symbol
        )
        for start in prefix
        for endpoint in _ENDPOINTS
        for symbol in fault.symbols
    ]


def _dump_rules(fault: Fault) -> list[dump.DumpRule]:
    effect: dump.DumpEffect
    rows = fault.integer("rows") or 1 if "rows" in fault.parameters else 1
    match fault.kind.name:
        case "missing_rows":
            effect = dump.LoseRows(rows=rows)
        case "duplicate_rows":
            effect = dump.RepeatRows(rows=rows)
        case "unsorted_rows":
            effect = dump.ShuffleRows()
        case "empty_cells":
            effect = dump.EmptyCells(rows=rows)
        case _:
            return []
    return [
        dump.DumpRule(effect=effect, path=f"data/futures/{fault.markets[0]}/*/{kind}/{symbol}/*")
        for kind in _FILES
        for symbol in fault.symbols
    ]
