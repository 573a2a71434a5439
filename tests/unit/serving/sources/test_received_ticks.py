from __future__ import annotations

from decimal import Decimal

from serving.protobuf.ticks import trade_of
from serving.sources.received_ticks import ReceivedTicks
from streamer.hub.ticks import MissedTrades, TradeTick

ONE = Decimal(1)


def trade(number: int, symbol: str = "BTCUSDT", *, single: bool = False) -> TradeTick:
    first = number if single else 10 * number
    return TradeTick(symbol, number, ONE, ONE, first, first, 1_000_000 + number, False)


def missed_after(
    symbol: str, *ids: int, broken: bool = False, single: bool = False
) -> list[MissedTrades]:
    """What is missed once a trade 5 was followed by those given."""
    received = ReceivedTicks()
    with received.hubs.trades.subscribe([symbol]) as subscription:
        received.trades([trade_of(trade(5, symbol, single=single))], [])
        fresh = [trade_of(trade(one, symbol, single=single)) for one in ids]
        received.trades(fresh, [], is_broken=broken)
        ticks = subscription.drain()
    assert [one.id for one in ticks.ticks] == [5, *ids]
    return ticks.missed


def test_skipped_ids_are_reported_as_missed() -> None:
    assert missed_after("BTCUSDT", 6, 7) == []
    assert missed_after("BTCUSDT", 6, 9) == [MissedTrades("BTCUSDT", 7, 8, 1_000_006, 1_000_009)]
    assert missed_after("BTCUSDT.P", 9)


def test_futures_trade_ids_skip_by_design_unless_messages_are_missing() -> None:
    assert missed_after("BTCUSDT.P", 9, single=True) == []
    missed = missed_after("BTCUSDT.P", 9, 12, single=True, broken=True)
    assert missed == [MissedTrades("BTCUSDT.P", 6, 8, 1_000_005, 1_000_009)]


def test_unsubscribed_trades_are_forgotten() -> None:
    received = ReceivedTicks()
    with received.hubs.trades.subscribe(["BTCUSDT"]) as subscription:
        received.trades([trade_of(trade(1))], [])
        received.hubs.trades.remove_symbols(subscription, ["BTCUSDT"])
        received.trades([trade_of(trade(5))], [])
        received.hubs.trades.add_symbols(subscription, ["BTCUSDT"])
        received.trades([trade_of(trade(9))], [])
        ticks = subscription.drain()
    assert ([one.id for one in ticks.ticks], ticks.missed) == ([9], [])
