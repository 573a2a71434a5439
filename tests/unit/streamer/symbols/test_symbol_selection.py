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


def test_new_listing_that_is_wanted_is_added_once() -> None:
    selection = SymbolSelection(["*USDT"], [A])
    assert symbols(selection.update([A, C, one("NUSDT", "PRE_TRADING")], T0).added) == []
    assert symbols(selection.update([A, C, one("NUSDT")], T0 + MINUTE_US).added) == ["NUSDT"]
    assert selection.update([A, C, one("NUSDT")], T0 + 2 * MINUTE_US).added == []
    assert selection.symbols == {"AUSDT", "NUSDT"}


def test_named_symbol_that_trades_again_is_added_again() -> None:
    selection = SymbolSelection(["AUSDT"], [A], gone_after_us=MINUTE_US)
    assert selection.update([one("AUSDT", "BREAK"), B, C], T0).halted == {"AUSDT": "BREAK"}
    assert selection.update([one("AUSDT", "BREAK"), B, C], T0 + MINUTE_US).removed == ["AUSDT"]
    assert symbols(selection.update([A, B, C], T0 + 2 * MINUTE_US).added) == ["AUSDT"]


def test_halt_is_reported_once_and_the_symbol_stays() -> None:
    selection = SymbolSelection(["*"], [A, B])
    halted = [A, one("BUSDT", "HALT")]
    assert selection.update(halted, T0).halted == {"BUSDT": "HALT"}
    for minute in range(1, 59):
        changes = selection.update(halted, T0 + minute * MINUTE_US)
        assert (changes.halted, changes.removed) == ({}, [])
    resumed = selection.update([A, B], T0 + 59 * MINUTE_US)
    assert (resumed.resumed, resumed.added) == (["BUSDT"], [])
    again = selection.update(halted, T0 + 60 * MINUTE_US)
    assert (again.halted, again.removed) == ({"BUSDT": "HALT"}, [])  # counted from zero


def test_symbol_missing_for_long_while_others_trade_is_removed() -> None:
    selection = SymbolSelection(["*"], [A, B])
    assert selection.update([A], T0).halted == {"BUSDT": "not listed"}
    assert selection.update([A], T0 + GONE_AFTER_US - 1).removed == []
    assert selection.update([A], T0 + GONE_AFTER_US).removed == ["BUSDT"]
    assert selection.symbols == {"AUSDT"}


def test_halt_of_the_whole_market_removes_no_symbol() -> None:
    selection = SymbolSelection(["*"], [A, B, C])
    selection.update([A, B, C], T0)
    still = [one(each.symbol, "BREAK") for each in (A, B)] + [C]
    assert set(selection.update(still, T0).halted) == {"AUSDT", "BUSDT"}
    assert selection.update(still, T0 + 9 * GONE_AFTER_US).removed == []
    assert selection.update([], T0 + 10 * GONE_AFTER_US).removed == []
    assert set(selection.update([A, B, C], T0 + 11 * GONE_AFTER_US).resumed) == {
        "AUSDT",
        "BUSDT",
        "CBTC",
    }


def test_free_places_of_top_are_filled_by_volume() -> None:
    selection = SymbolSelection(["*"], [A, B], top=2, gone_after_us=0)
    volumes = {"CBTC": Decimal(5), "DUSDT": Decimal(9), "EUSDT": Decimal(9)}
    candidates = [C, one("EUSDT"), one("DUSDT")]
    assert not selection.has_candidates([A, B, *candidates])
    assert selection.update([A, B, *candidates], T0, quote_volume_24h=volumes).added == []
    changes = selection.update([A, *candidates], T0)
    assert (changes.removed, changes.added) == (["BUSDT"], [])  # without volumes
    assert selection.has_candidates([A, *candidates])
    changes = selection.update([A, *candidates], T0, quote_volume_24h=volumes)
    assert symbols(changes.added) == ["DUSDT"]
    assert not selection.has_candidates([A, *candidates])


def test_unwanted_symbols_are_dropped_and_the_rest_stays() -> None:
    selection = SymbolSelection(["AUSDT", "BUSDT"], [A, B])
    selection.update([A, one("BUSDT", "HALT"), C], T0)
    selection.want(["A*", "CBTC"])
    changes = selection.update([A, one("BUSDT", "HALT"), C], T0 + 1)
    assert (changes.dropped, changes.removed, changes.halted) == (["BUSDT"], [], {})
    assert symbols(changes.added) == ["CBTC"]
    assert selection.symbols == {"AUSDT", "CBTC"}
    assert selection.update([A, B, C], T0 + 2).resumed == []  # forgotten with its halt
    selection.want([])
    assert not selection.is_idle
    assert selection.update([A, B, C], T0 + 3).dropped == ["AUSDT", "CBTC"]
    assert selection.is_idle


def test_halted_symbol_that_still_matches_a_pattern_is_kept() -> None:
    selection = SymbolSelection(["AUSDT"], [A])
    selection.want(["*USDT"])
    changes = selection.update([one("AUSDT", "HALT"), B], T0)
    assert (changes.dropped, changes.halted) == ([], {"AUSDT": "HALT"})
    assert symbols(changes.added) == ["BUSDT"]


def test_watched_symbols_are_added_and_unwatched_ones_dropped() -> None:
    selection = SymbolSelection(["AUSDT"], [A])
    assert selection.watch(["BUSDT", "CBTC"])
    assert not selection.watch(["CBTC", "BUSDT"])
    assert symbols(selection.update([A, B, C], T0).added) == ["BUSDT", "CBTC"]
    selection.watch(["CBTC"])
    changes = selection.update([A, B, C], T0)
    assert (changes.dropped, changes.added) == (["BUSDT"], [])
    assert selection.symbols == {"AUSDT", "CBTC"}


def test_wanted_symbol_stays_when_it_is_no_longer_watched() -> None:
    selection = SymbolSelection(["*USDT"], [A])
    selection.watch(["AUSDT", "BUSDT"])
    assert symbols(selection.update([A, B, C], T0).added) == ["BUSDT"]
    selection.watch([])
    assert selection.update([A, one("BUSDT", "HALT"), C], T0).dropped == []
    assert selection.symbols == {"AUSDT", "BUSDT"}
    selection.want(["AUSDT"])
    selection.watch(["BUSDT"])
    assert selection.update([A, B, C], T0).dropped == []
    selection.watch([])
    assert selection.update([A, B, C], T0).dropped == ["BUSDT"]


def test_watched_symbols_do_not_count_for_top() -> None:
    small, volumes = one("SUSDT"), {"AUSDT": Decimal(9), "BUSDT": Decimal(5), "SUSDT": Decimal(1)}
    selection = SymbolSelection(["*USDT"], [A], top=1)
    selection.watch(["SUSDT"])
    assert not selection.has_candidates([A, B, small])
    assert symbols(selection.update([A, B, small], T0, quote_volume_24h=volumes).added) == ["SUSDT"]
    assert selection.symbols == {"AUSDT", "SUSDT"}
    selection.watch([])
    assert selection.update([A, B, small], T0).dropped == ["SUSDT"]


def test_watched_symbol_that_gets_a_place_keeps_it() -> None:
    selection = SymbolSelection(["*USDT"], [A], top=2)
    selection.watch(["BUSDT"])
    assert symbols(selection.update([A, B], T0).added) == ["BUSDT"]
    assert selection.has_candidates([A, B])
    assert selection.update([A, B], T0, quote_volume_24h={"BUSDT": Decimal(1)}).added == []
    selection.watch([])
    assert selection.update([A, B], T0).dropped == []


def test_unknown_watched_symbols_are_named_and_halted_ones_wait() -> None:
    selection = SymbolSelection([], [])
    assert selection.is_idle
    selection.watch(["NOUSDT", "BUSDT"])
    assert not selection.is_idle
    listed = [A, one("BUSDT", "BREAK")]
    assert selection.update(listed, T0).added == []
    assert selection.unlisted(listed) == ["NOUSDT"]
    assert symbols(selection.update([A, B], T0).added) == ["BUSDT"]
