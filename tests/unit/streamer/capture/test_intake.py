"""Frames become rows, each trade once, void ones never."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from include.binance.frames import AggTrade, Trade
from include.binance.quotes import BookTicker
from include.domain.instruments import Market
from streamer.capture.intake import BUFFER_FULL, DATASETS, Intake
from streamer.capture.losses import Loss

AT_MS = 1_763_716_800_000


def intake(*datasets: str, most_rows: int = 10_000) -> tuple[Intake, list[Loss]]:
    losses: list[Loss] = []
    made = Intake(
        datasets or DATASETS,
        most_rows=most_rows,
        on_losses=losses.extend,
        now_us=lambda: 77,
        monotonic_s=lambda: 0.0,
    )
    return made, losses


def agg_trade(number: int, *, price: str = "2.50", first_id: int | None = None) -> AggTrade:
    first = number if first_id is None else first_id
    return AggTrade(
        AT_MS, "BTCUSDT", number, Decimal(price), Decimal("0.1"), first, first, AT_MS, True
    )


def trade(number: int, *, price: str = "2.50") -> Trade:
    return Trade(AT_MS, "BTCUSDT", number, Decimal(price), Decimal("0.1"), AT_MS, False)


def quote(number: int, event_time: int = 0) -> BookTicker:
    numbers = [Decimal(text) for text in ("1", "2", "3", "4")]
    return BookTicker(number, "BTCUSDT", *numbers, event_time)


def rows(made: Intake) -> list[tuple[Any, ...]]:
    return [row for lane in made.lanes.lanes for row in lane.rows]


def test_an_aggregate_trade_is_a_row_under_the_platforms_symbol() -> None:
    made, _ = intake()
    made.on_trade(Market.UM, agg_trade(5))
    price, quantity = Decimal("2.50"), Decimal("0.1")
    assert rows(made) == [("BTCUSDT.P", 5, price, quantity, 5, 5, AT_MS * 1000, True)]


def test_trades_come_once_and_holes_are_noted() -> None:
    made, _ = intake()
    for number in (1, 2, 2, 5, 4, 1):
        made.on_trade(Market.SPOT, agg_trade(number))
        made.on_trade(Market.SPOT, trade(number))
    assert [row[1] for row in rows(made)] == [1, 2, 5, 4] * 2
    assert made.duplicates == 4
    for dataset in ("agg_trades", "trades"):
        (hole,) = made.sequence(dataset, "BTCUSDT").holes
        assert (hole.first_id, hole.last_id) == (3, 3)


def test_single_trades_of_usd_m_skip_without_a_hole() -> None:
    made, _ = intake()
    for number in (1, 7):
        made.on_trade(Market.UM, trade(number))
    assert [row[1] for row in rows(made)] == [1, 7]
    assert made.sequences == {}


def test_a_void_trade_does_not_use_up_its_id() -> None:
    made, _ = intake()
    made.on_trade(Market.SPOT, agg_trade(1))
    made.on_trade(Market.SPOT, agg_trade(2, price="0"))
    made.on_trade(Market.SPOT, agg_trade(2, first_id=-1))
    made.on_trade(Market.SPOT, agg_trade(2))
    assert [row[1] for row in rows(made)] == [1, 2]
    assert made.void_trades == 2


def test_only_wanted_kinds_are_taken() -> None:
    made, _ = intake("agg_trades")
    made.on_trade(Market.SPOT, trade(1))
    assert rows(made) == []
    assert made.takes("agg_trades")
    assert not made.takes("trades")


def test_a_quote_bears_the_time_that_it_tells_or_that_of_its_receipt() -> None:
    made, _ = intake()
    made.on_quote(Market.SPOT, quote(1))
    made.on_quote(Market.SPOT, quote(1))
    made.on_quote(Market.UM, quote(1, AT_MS))
    assert [(row[0], row[6], row[7]) for row in rows(made)] == [
        ("BTCUSDT", None, 77),
        ("BTCUSDT.P", AT_MS * 1000, 77),
    ]


def test_trades_without_room_are_asked_for_later() -> None:
    made, losses = intake("agg_trades", most_rows=1_500)
    for number in range(1_501):
        made.on_trade(Market.SPOT, agg_trade(number))
    (hole,) = made.sequence("agg_trades", "BTCUSDT").holes
    assert (hole.first_id, hole.last_id) == (0, 999)
    assert [row[1] for row in rows(made)] == list(range(1_000, 1_501))
    assert losses == []


def test_quotes_without_room_are_lost_and_told() -> None:
    made, losses = intake("book_tickers", most_rows=1_500)
    for number in range(1_501):
        made.on_quote(Market.SPOT, quote(number))
    assert [(loss.symbol, loss.cause, loss.rows) for loss in losses] == [
        ("BTCUSDT", BUFFER_FULL, 1_000)
    ]
