from __future__ import annotations

from decimal import Decimal

from include.domain.instruments import Instrument, Market
from include.domain.timeframes import MINUTE_US
from streamer.symbols.symbol_selection import GONE_AFTER_US, SymbolSelection

T0 = 1_700_000_000_000_000


def one(symbol: str, status: str = "TRADING") -> Instrument:
    return Instrument(symbol, Market.SPOT, "A", "B", status, Decimal("0.01"), Decimal("0.01"))


A, B, C = one("AUSDT"), one("BUSDT"), one("CBTC")


def symbols(instruments: list[Instrument]) -> list[str]:
    return [each.symbol for each in instruments]


def test_what_is_newly_listed_and_wanted_is_added_once() -> None:
    roster = SymbolSelection(["*USDT"], [A])
    assert symbols(roster.update([A, C, one("NUSDT", "PRE_TRADING")], T0).added) == []
    assert symbols(roster.update([A, C, one("NUSDT")], T0 + MINUTE_US).added) == ["NUSDT"]
    assert roster.update([A, C, one("NUSDT")], T0 + 2 * MINUTE_US).added == []
    assert roster.symbols == {"AUSDT", "NUSDT"}


def test_a_named_symbol_that_trades_again_is_taken_up_again() -> None:
    roster = SymbolSelection(["AUSDT"], [A], gone_after_us=MINUTE_US)
    assert roster.update([one("AUSDT", "BREAK"), B, C], T0).halted == {"AUSDT": "BREAK"}
    assert roster.update([one("AUSDT", "BREAK"), B, C], T0 + MINUTE_US).removed == ["AUSDT"]
    assert symbols(roster.update([A, B, C], T0 + 2 * MINUTE_US).added) == ["AUSDT"]


def test_a_halt_is_told_once_and_its_streams_stay() -> None:
    roster = SymbolSelection(["*"], [A, B])
    halted = [A, one("BUSDT", "HALT")]
    assert roster.update(halted, T0).halted == {"BUSDT": "HALT"}
    for minute in range(1, 59):
        changes = roster.update(halted, T0 + minute * MINUTE_US)
        assert (changes.halted, changes.removed) == ({}, [])
    resumed = roster.update([A, B], T0 + 59 * MINUTE_US)
    assert (resumed.resumed, resumed.added) == (["BUSDT"], [])
    again = roster.update(halted, T0 + 60 * MINUTE_US)
    assert (again.halted, again.removed) == ({"BUSDT": "HALT"}, [])  # counted anew


def test_a_symbol_that_stays_away_while_others_trade_is_gone() -> None:
    roster = SymbolSelection(["*"], [A, B])
    assert roster.update([A], T0).halted == {"BUSDT": "not listed"}
    assert roster.update([A], T0 + GONE_AFTER_US - 1).removed == []
    assert roster.update([A], T0 + GONE_AFTER_US).removed == ["BUSDT"]
    assert roster.symbols == {"AUSDT"}


def test_a_market_that_is_halted_as_a_whole_loses_no_symbol() -> None:
    roster = SymbolSelection(["*"], [A, B, C])
    roster.update([A, B, C], T0)
    still = [one(each.symbol, "BREAK") for each in (A, B)] + [C]
    assert set(roster.update(still, T0).halted) == {"AUSDT", "BUSDT"}
    assert roster.update(still, T0 + 9 * GONE_AFTER_US).removed == []
    assert roster.update([], T0 + 10 * GONE_AFTER_US).removed == []
    assert set(roster.update([A, B, C], T0 + 11 * GONE_AFTER_US).resumed) == {
        "AUSDT",
        "BUSDT",
        "CBTC",
    }


def test_free_places_of_the_largest_are_given_by_volume() -> None:
    roster = SymbolSelection(["*"], [A, B], top=2, gone_after_us=0)
    volumes = {"CBTC": Decimal(5), "DUSDT": Decimal(9), "EUSDT": Decimal(9)}
    candidates = [C, one("EUSDT"), one("DUSDT")]
    assert not roster.has_candidates([A, B, *candidates])
    assert roster.update([A, B, *candidates], T0, quote_volume_24h=volumes).added == []
    changes = roster.update([A, *candidates], T0)
    assert (changes.removed, changes.added) == (["BUSDT"], [])  # nobody asked for volumes
    assert roster.has_candidates([A, *candidates])
    changes = roster.update([A, *candidates], T0, quote_volume_24h=volumes)
    assert symbols(changes.added) == ["DUSDT"]
    assert not roster.has_candidates([A, *candidates])


def test_what_is_not_wanted_any_more_is_dropped_and_the_rest_stays() -> None:
    roster = SymbolSelection(["AUSDT", "BUSDT"], [A, B])
    roster.update([A, one("BUSDT", "HALT"), C], T0)
    roster.want(["A*", "CBTC"])
    changes = roster.update([A, one("BUSDT", "HALT"), C], T0 + 1)
    assert (changes.dropped, changes.removed, changes.halted) == (["BUSDT"], [], {})
    assert symbols(changes.added) == ["CBTC"]
    assert roster.symbols == {"AUSDT", "CBTC"}
    assert roster.update([A, B, C], T0 + 2).resumed == []  # forgotten with its halt
    roster.want([])
    assert not roster.is_idle
    assert roster.update([A, B, C], T0 + 3).dropped == ["AUSDT", "CBTC"]
    assert roster.is_idle


def test_a_halted_symbol_that_a_pattern_still_speaks_of_is_kept() -> None:
    roster = SymbolSelection(["AUSDT"], [A])
    roster.want(["*USDT"])
    changes = roster.update([one("AUSDT", "HALT"), B], T0)
    assert (changes.dropped, changes.halted) == ([], {"AUSDT": "HALT"})
    assert symbols(changes.added) == ["BUSDT"]


def test_what_is_watched_is_added_and_dropped_when_it_is_not() -> None:
    roster = SymbolSelection(["AUSDT"], [A])
    assert roster.watch(["BUSDT", "CBTC"])
    assert not roster.watch(["CBTC", "BUSDT"])
    assert symbols(roster.update([A, B, C], T0).added) == ["BUSDT", "CBTC"]
    roster.watch(["CBTC"])
    changes = roster.update([A, B, C], T0)
    assert (changes.dropped, changes.added) == (["BUSDT"], [])
    assert roster.symbols == {"AUSDT", "CBTC"}


def test_what_the_settings_ask_for_stays_when_nobody_watches_it() -> None:
    roster = SymbolSelection(["*USDT"], [A])
    roster.watch(["AUSDT", "BUSDT"])
    assert symbols(roster.update([A, B, C], T0).added) == ["BUSDT"]
    roster.watch([])
    assert roster.update([A, one("BUSDT", "HALT"), C], T0).dropped == []
    assert roster.symbols == {"AUSDT", "BUSDT"}
    roster.want(["AUSDT"])
    roster.watch(["BUSDT"])
    assert roster.update([A, B, C], T0).dropped == []
    roster.watch([])
    assert roster.update([A, B, C], T0).dropped == ["BUSDT"]


def test_what_is_watched_takes_no_place_of_the_largest() -> None:
    small, volumes = one("SUSDT"), {"AUSDT": Decimal(9), "BUSDT": Decimal(5), "SUSDT": Decimal(1)}
    roster = SymbolSelection(["*USDT"], [A], top=1)
    roster.watch(["SUSDT"])
    assert not roster.has_candidates([A, B, small])
    assert symbols(roster.update([A, B, small], T0, quote_volume_24h=volumes).added) == ["SUSDT"]
    assert roster.symbols == {"AUSDT", "SUSDT"}
    roster.watch([])
    assert roster.update([A, B, small], T0).dropped == ["SUSDT"]


def test_a_watched_symbol_that_gets_a_place_keeps_it_when_nobody_watches_it() -> None:
    roster = SymbolSelection(["*USDT"], [A], top=2)
    roster.watch(["BUSDT"])
    assert symbols(roster.update([A, B], T0).added) == ["BUSDT"]
    assert roster.has_candidates([A, B])
    assert roster.update([A, B], T0, quote_volume_24h={"BUSDT": Decimal(1)}).added == []
    roster.watch([])
    assert roster.update([A, B], T0).dropped == []


def test_what_is_watched_and_does_not_exist_is_named_and_what_is_halted_waits() -> None:
    roster = SymbolSelection([], [])
    assert roster.is_idle
    roster.watch(["NOUSDT", "BUSDT"])
    assert not roster.is_idle
    listed = [A, one("BUSDT", "BREAK")]
    assert roster.update(listed, T0).added == []
    assert roster.unlisted(listed) == ["NOUSDT"]
    assert symbols(roster.update([A, B], T0).added) == ["BUSDT"]
