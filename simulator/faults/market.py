"""Faults of the market itself: halts, delistings, new listings, reused tickers.

They change the market, so the oracle includes them. The served past never changes. The delisting
of a dated contract is its delivery, before its date.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from simulator.clock import MINUTE_US, SECOND_US, SimulatedClock
from simulator.faults.plan import Fault, PlanError
from simulator.market.hours.calendar import CalendarError, TradingCalendar
from simulator.market.instruments import MarketName, select_instruments
from simulator.market.market import SimulatedMarket

PAST_TOLERANCE_S = 0.1  # real time between writing a plan and starting it

# Called with the time from which the market is different.
Reschedule = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class _Change:
    """Effect of one fault on one symbol's calendar."""

    fault_id: str | None
    kind: str
    at_us: int
    until_us: int | None

    def apply(self, calendar: TradingCalendar) -> TradingCalendar:
        match self.kind:
            case "halt":
                return calendar.halted(self.at_us, self.until_us)
            case "delisting":
                return calendar.delisted(self.at_us)
            case "ticker_reuse":
                if self.until_us is None:
                    raise ValueError("a reused ticker needs the time of its return")
                return calendar.delisted(self.at_us).relisted(self.until_us)
        raise ValueError(f"{self.kind} changes no calendar")


class MarketFaults:
    """Executes market faults on the simulated markets.

    Args:
        reschedule: by market, regenerates frames that were made in advance.
    """

    def __init__(
        self,
        markets: Mapping[MarketName, SimulatedMarket],
        clock: SimulatedClock,
        *,
        seed: int,
        reschedule: Mapping[MarketName, Reschedule],
    ) -> None:
        self._markets = markets
        self._clock = clock
        self._seed = seed
        self._reschedule = reschedule
        self._bases: dict[tuple[MarketName, str], TradingCalendar] = {}
        self._changes: dict[tuple[MarketName, str], list[_Change]] = {}
        self._symbols: dict[str | None, tuple[str, ...]] = {}
        self._begun: set[str | None] = set()

    def accept(self, fault: Fault) -> None:
        """Change the future of the market."""
        now_us = self._clock.now_us()
        tolerance_us = int(PAST_TOLERANCE_S * max(1.0, self._clock.speed) * SECOND_US)
        if fault.at_us < now_us - tolerance_us:
            late_s = (now_us - fault.at_us) / SECOND_US
            raise PlanError(
                f"{fault.kind.name}: at is {late_s:.1f} s in the exchange's past; it must "
                "be in the future, e.g. '+60s'"
            )
        from_us = max(fault.at_us, now_us)
        name = fault.markets[0]
        if fault.kind.name == "new_listing":
            self._list(fault, name, from_us)
            return
        symbols = self._known(fault, name, from_us)
        until_us = fault.end_us
        if fault.kind.name == "ticker_reuse":
            until_us = from_us + fault.span_us("pause_s")
        change = _Change(fault.id, fault.kind.name, from_us, until_us)
        changed = {symbol: [*self._changes.get((name, symbol), ()), change] for symbol in symbols}
        self._set(name, changed, from_us)
        self._symbols[fault.id] = symbols

    def begin(self, fault: Fault) -> None:
        """Record that the fault began; the calendar already has it."""
        self._begun.add(fault.id)

    def end(self, fault: Fault) -> None:
        """Undo what has not happened yet: a future change, or the rest of a halt."""
        now_us = self._clock.now_us()
        if fault.id in self._begun and fault.end_us is not None and now_us >= fault.end_us:
            return
        name = fault.markets[0]
        symbols = self._symbols.get(fault.id, ())
        if fault.kind.name == "new_listing":
            if fault.id not in self._begun:
                for symbol in symbols:
                    self._markets[name].drop_listing(symbol)
                self._reschedule[name](now_us)
            return
        changed: dict[str, list[_Change]] = {}
        for symbol in symbols:
            kept = []
            for change in self._changes[name, symbol]:
                if change.fault_id != fault.id:
                    kept.append(change)
                elif fault.id in self._begun:
                    kept.append(replace(change, until_us=max(now_us, change.at_us + 1)))
            changed[symbol] = kept
        self._set(name, changed, now_us)

    def hits(self, fault: Fault) -> int:
        """Return the number of symbols hit."""
        return len(self._symbols.get(fault.id, ())) if fault.id in self._begun else 0

    def is_spent(self, _fault: Fault) -> bool:
        """Return false: the fault ends by its time."""
        return False

    def _list(self, fault: Fault, name: MarketName, from_us: int) -> None:
        market = self._markets[name]
        known = [symbol for symbol in fault.symbols if symbol in market]
        if known:
            raise PlanError(
                f"new_listing: {known[0]} exists on {name}; choose a new name, or "
                "ticker_reuse to list a delisted one again"
            )
        try:
            instruments = select_instruments(name, fault.symbols, seed=self._seed)
        except ValueError as error:
            raise PlanError(f"new_listing: {error}") from error
        start_us = -(-from_us // MINUTE_US) * MINUTE_US
        for instrument in instruments:
            market.add_listing(instrument, start_us=start_us)
        self._symbols[fault.id] = fault.symbols
        self._reschedule[name](from_us)

    def _known(self, fault: Fault, name: MarketName, at_us: int) -> tuple[str, ...]:
        market = self._markets[name]
        found = tuple(
            symbol
            for symbol in market
            if fault.hits_symbol(symbol)
            and market.history(symbol).calendar.state(at_us) in ("trading", "halted")
        )
        if not found:
            some = ", ".join(list(market)[:10])
            raise PlanError(
                f"{fault.kind.name}: no listed symbol of {name} matches "
                f"{', '.join(fault.symbols)}; there are {some}"
            )
        return found

    def _set(self, name: MarketName, changed: Mapping[str, list[_Change]], from_us: int) -> None:
        """Apply changes to the calendars of symbols, all or none."""
        market = self._markets[name]
        calendars: dict[str, TradingCalendar] = {}
        for symbol, changes in changed.items():
            calendar = self._bases.setdefault((name, symbol), market.history(symbol).calendar)
            for change in sorted(changes, key=lambda one: one.at_us):
                try:
                    calendar = change.apply(calendar)
                except CalendarError as error:
                    raise PlanError(f"{change.kind} of {symbol} on {name}: {error}") from error
            calendars[symbol] = calendar
        for symbol, calendar in calendars.items():
            market.history(symbol).change(calendar, from_us=from_us)
            self._changes[name, symbol] = changed[symbol]
        self._reschedule[name](from_us)
