"""The channels of trades and best prices as a reader uses them: a real server, a real client."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from websockets.asyncio.client import connect

from include.store.trades.liquidations import Liquidation
from streamer.hub import ticks as fans_module
from streamer.hub.ticks import BookTickerUpdate, MissedLiquidations, MissedTrades, TradeTick
from streamer.hub.trade_hub import BookTickerHub, LiquidationHub, TickHubs, TradeHub
from tests.integration.serving.websocket.test_endpoint import NAMES, ask, next_message, open_to

T0_US = 1_700_000_040_123_456


def trade(number: int, symbol: str = "S1USDT") -> TradeTick:
    return TradeTick(
        symbol, number, Decimal("12.50"), Decimal("1E-8"), number * 2, number * 2 + 1, T0_US, True
    )


def book_ticker(number: int, symbol: str = "S1USDT") -> BookTickerUpdate:
    return BookTickerUpdate(symbol, number, "1.10", "2", "1.20", "3.000", None, T0_US)


def hubs(**options: Any) -> TickHubs:
    return TickHubs(
        TradeHub(), BookTickerHub(**{"linger_s": 0.0} | options), LiquidationHub(linger_s=0.0)
    )


async def gone(hubs: TickHubs) -> None:
    async with asyncio.timeout(10):
        while hubs.trades.subscribers or hubs.book_tickers.subscribers:
            await asyncio.sleep(0.01)


async def test_trades_are_delivered_in_order_until_unsubscribed() -> None:
    ticks = hubs()
    async with open_to(ticks=ticks) as (address, _, _):
        async with connect(f"ws://{address}/api/v1/ws") as socket:
            await ask(socket, "subscribe", channel="trades", symbols=["S1USDT", "S2USDT"], id=3)
            assert await next_message(socket, "subscribed") == {
                "type": "subscribed", "channel": "trades", "symbols": ["S1USDT", "S2USDT"], "id": 3,
            }  # fmt: skip
            ticks.trades.publish(trade(1))
            ticks.trades.publish(trade(1, "S3USDT"))
            (told,) = (await next_message(socket, "trades"))["data"]
            assert told == {
                "symbol": "S1USDT",
                "id": 1,
                "price": "12.50",
                "quantity": "0.00000001",
                "time": T0_US // 1_000,
                "is_buyer_maker": True,
                "first_trade_id": 2,
                "last_trade_id": 3,
            }
            await ask(socket, "unsubscribe", channel="trades", symbol="S1USDT")
            assert (await next_message(socket, "unsubscribed"))["symbols"] == ["S1USDT"]
            assert ticks.trades.wanted == {"S2USDT"}
            ticks.trades.publish(trade(2))
            ticks.trades.report_missed(MissedTrades("S2USDT", 4, 5, T0_US, T0_US + 1_000))
            ticks.trades.publish(trade(6, "S2USDT"))
            assert (await next_message(socket, "missed"))["data"] == [
                {
                    "symbol": "S2USDT",
                    "channel": "trades",
                    "first_id": 4,
                    "last_id": 5,
                    "from": T0_US // 1_000,
                    "to": T0_US // 1_000 + 1,
                }
            ]
            told = (await next_message(socket, "trades"))["data"]
            assert [(one["symbol"], one["id"]) for one in told] == [("S2USDT", 6)]
            await ask(socket, "unsubscribe", channel="trades")
            assert (await next_message(socket, "unsubscribed"))["symbols"] == ["S2USDT"]
            assert not ticks.trades.wanted
        await gone(ticks)


async def test_current_book_ticker_comes_first_then_the_newest() -> None:
    ticks = hubs(linger_s=100.0)
    async with open_to(ticks=ticks) as (address, _, _):
        with ticks.book_tickers.subscribe(["S1USDT"]):
            ticks.book_tickers.publish(book_ticker(1))
        async with connect(f"ws://{address}/api/v1/ws") as socket:
            await ask(socket, "subscribe", channel="book", symbol="S1USDT")
            (told,) = (await next_message(socket, "book"))["data"]
            assert told == {
                "symbol": "S1USDT",
                "update_id": 1,
                "bid_price": "1.10",
                "bid_quantity": "2",
                "ask_price": "1.20",
                "ask_quantity": "3.000",
                "event_time": None,
                "received_time": T0_US // 1_000,
            }
            for number in (2, 3):
                ticks.book_tickers.publish(book_ticker(number))
            (told,) = (await next_message(socket, "book"))["data"]
            assert told["update_id"] == 3
        await gone(ticks)


async def test_slow_reader_receives_the_trade_ids_it_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fans_module, "MAX_TRADES_WAITING", 100)
    ticks = hubs()
    async with (
        open_to(ticks=ticks) as (address, _, _),
        connect(f"ws://{address}/api/v1/ws") as socket,
    ):
        await ask(socket, "subscribe", channel="trades", symbol="S1USDT")
        await next_message(socket, "subscribed")
        for number in range(1, 1_001):  # in one turn, so that no reader runs meanwhile
            ticks.trades.publish(trade(number))
        (missed,) = (await next_message(socket, "missed"))["data"]
        assert (missed["first_id"], missed["last_id"]) == (1, 900)
        ids = [one["id"] for one in (await next_message(socket, "trades"))["data"]]
        assert ids == list(range(901, 1_001))


async def test_invalid_requests_are_errors() -> None:
    ticks = hubs(max_symbols=2)
    async with open_to(ticks=ticks) as (address, _, _):
        async with connect(f"ws://{address}/api/v1/ws") as socket:
            for fields, code, text in (
                ({"channel": "book", "symbols": NAMES[:3]}, "too_many_symbols", "2 at most"),
                ({"channel": "trades", "symbols": NAMES[:1_001]}, "too_many_symbols", "1000"),
                ({"channel": "trades", "symbol": "NONE"}, "unknown_symbol", "is not streamed"),
                (
                    {"channel": "book", "symbol": NAMES[0], "format": "binary"},
                    "wrong_field",
                    "binary is of the channel price",
                ),
            ):
                await ask(socket, "subscribe", **fields)  # type: ignore[arg-type]
                error = await next_message(socket, "error")
                assert (error["code"], text in error["message"]) == (code, True), error
            assert not ticks.book_tickers.subscribers
            await ask(socket, "unsubscribe", channel="book", symbol=NAMES[0])
            assert (await next_message(socket, "unsubscribed"))["symbols"] == []
            # what is subscribed of one channel leaves less room for the others
            await ask(socket, "subscribe", channel="trades", symbols=NAMES[:1_000])
            await next_message(socket, "subscribed")
            await ask(socket, "subscribe", channel="candles", symbol=NAMES[0])
            assert (await next_message(socket, "error"))["code"] == "too_many_symbols"
        await gone(ticks)
    async with (
        open_to() as (address, _, _),
        connect(f"ws://{address}/api/v1/ws") as socket,
    ):
        await ask(socket, "subscribe", channel="trades", symbol="S1USDT")
        error = await next_message(socket, "error")
        assert error["code"] == "not_served"


async def test_returning_symbol_keeps_its_id_in_binary_prices() -> None:
    async with (
        open_to() as (address, _, _),
        connect(f"ws://{address}/api/v1/ws") as socket,
    ):
        await ask(socket, "subscribe", channel="price", symbols=NAMES[:2])
        await next_message(socket, "subscribed")
        await ask(socket, "subscribe", channel="price", symbols=NAMES[1:3], format="binary")
        ids = (await next_message(socket, "symbols"))["ids"]
        assert sorted(ids) == sorted(NAMES[:3])  # also for symbols that were sent as JSON before
        await ask(socket, "unsubscribe", channel="price", symbol=NAMES[0])
        await next_message(socket, "unsubscribed")
        await ask(socket, "subscribe", channel="price", symbols=[NAMES[0], NAMES[3]])
        mailbox = (await next_message(socket, "symbols"))["ids"]
        assert list(mailbox) == [NAMES[3]]
        assert len({*ids.values(), *mailbox.values()}) == 4


async def test_liquidations_are_delivered_as_a_sample_with_what_was_missed() -> None:
    ticks = hubs()
    assert ticks.liquidations is not None
    amounts = [Decimal(one) for one in ("9910.0", "9900.5", "0.014", "1E-8", "0.014")]
    one = Liquidation(
        "S1USDT", T0_US, T0_US + 5_000, T0_US + 9_000, "SELL", "LIMIT", "IOC", *amounts, "FILLED"
    )
    async with open_to(ticks=ticks) as (address, _, _):
        async with connect(f"ws://{address}/api/v1/ws") as socket:
            await ask(socket, "subscribe", channel="liquidations", symbol="S1USDT")
            await next_message(socket, "subscribed")
            assert ticks.liquidations.wanted == {"S1USDT"}
            ticks.liquidations.publish(one)
            assert await next_message(socket, "liquidations") == {
                "type": "liquidations",
                "is_sample": True,
                "data": [
                    {
                        "symbol": "S1USDT", "id": str(one.id), "order_time": T0_US // 1_000,
                        "event_time": T0_US // 1_000 + 5, "received_at": T0_US // 1_000 + 9,
                        "side": "SELL", "order_type": "LIMIT", "time_in_force": "IOC",
                        "price": "9910.0", "average_price": "9900.5", "quantity": "0.014",
                        "last_filled_quantity": "0.00000001", "accumulated_quantity": "0.014",
                        "order_status": "FILLED",
                    }
                ],
            }  # fmt: skip
            ticks.liquidations.report_missed(MissedLiquidations("S1USDT", 5_000, 9_000, 2))
            assert (await next_message(socket, "missed"))["data"] == [
                {"symbol": "S1USDT", "channel": "liquidations", "count": 2, "from": 5, "to": 9}
            ]
        while ticks.liquidations.subscribers:
            await asyncio.sleep(0.01)


async def test_liquidations_without_a_source_are_refused() -> None:
    async with (
        open_to(ticks=TickHubs()) as (address, _, _),
        connect(f"ws://{address}/api/v1/ws") as socket,
    ):
        await ask(socket, "subscribe", channel="liquidations", symbol="S1USDT")
        refused = await next_message(socket, "error")
        assert (refused["code"], refused["message"]) == (
            "not_served", "liquidations are not served here; ask a streamer",
        )  # fmt: skip
