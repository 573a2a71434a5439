"""Frames become rows, each trade once, void ones never."""

from __future__ import annotations

from decimal import Decimal

from include.binance.streams.book_tickers import BookTicker
from include.binance.streams.liquidations import ForceOrder, LiquidationOrder
from include.binance.streams.messages import AggTrade, Trade
from include.domain.instruments import Market
from streamer.capture.intake.rows import BUFFER_FULL, DATASETS, Intake
from streamer.capture.spool.losses import Loss

AT_MS = 1_763_716_800_000


def intake(*datasets: str, max_rows: int = 10_000) -> tuple[Intake, list[Loss]]:
    losses: list[Loss] = []
    made = Intake(
        datasets or DATASETS,
        max_rows=max_rows,
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


def trade(number: int, *, price: str = "2.50", trade_type: str | None = None) -> Trade:
    quantity = Decimal("0.1")
    return Trade(AT_MS, "BTCUSDT", number, Decimal(price), quantity, AT_MS, False, trade_type)


def book_ticker(number: int, event_time: int = 0) -> BookTicker:
    return BookTicker(number, "BTCUSDT", "1", "2.50", "3", "4", event_time)


def liquidation(order_ms: int = AT_MS, *, event_ms: int = AT_MS + 5) -> ForceOrder:
    amounts = ("0.1", "2.50", "2.49", "FILLED", "0.1", "0.1")
    return ForceOrder(
        event_ms, LiquidationOrder("BTCUSDT", "SELL", "LIMIT", "IOC", *amounts, order_ms)
    )


def rows(made: Intake) -> list[list[str]]:
    """Fields of the lines that wait."""
    return [line.rstrip("\n").split("\t") for lane in made.lanes.lanes for line in lane.rows]


def ids(made: Intake) -> list[int]:
    return [int(row[2]) for row in rows(made)]


def test_agg_trade_is_a_row_under_the_platform_symbol() -> None:
    made, _ = intake()
    made.on_trade(Market.UM, agg_trade(5))
    at = "2025-11-21 09:20:00.000000+00"
    assert rows(made) == [["BTCUSDT.P", "2025-11-21", "5", "2.50", "0.1", "5", "5", at, "t"]]


def test_repeated_trades_are_dropped_and_missing_ranges_noted() -> None:
    made, _ = intake()
    for number in (1, 2, 2, 5, 4, 1):
        made.on_trade(Market.SPOT, agg_trade(number))
        made.on_trade(Market.SPOT, trade(number))
    assert ids(made) == [1, 2, 5, 4] * 2
    assert made.duplicates == 4
    for dataset in ("agg_trades", "trades"):
        (missing_range,) = made.sequence(dataset, "BTCUSDT").missing_ranges
        assert (missing_range.first_id, missing_range.last_id) == (3, 3)


def test_single_trades_of_usd_m_skip_without_a_missing_range() -> None:
    made, _ = intake()
    for number in (1, 7):
        made.on_trade(Market.UM, trade(number))
    assert ids(made) == [1, 7]
    assert made.sequences == {}


def test_trade_row_has_its_type_if_the_exchange_sends_one() -> None:
    made, _ = intake("trades")
    made.on_trade(Market.SPOT, trade(1))
    made.on_trade(Market.UM, trade(1, trade_type="MARKET"))
    made.on_trade(Market.UM, trade(2, trade_type="INSURANCE_FUND"))
    made.on_trade(Market.UM, trade(3, price="0", trade_type="NA"))
    found = [(row[0], row[2], row[-1]) for row in rows(made)]
    assert found == [
        ("BTCUSDT", "1", "\\N"), ("BTCUSDT.P", "1", "MARKET"), ("BTCUSDT.P", "2", "INSURANCE_FUND"),
    ]  # fmt: skip


def test_void_trade_does_not_use_up_its_id() -> None:
    made, _ = intake()
    made.on_trade(Market.SPOT, agg_trade(1))
    made.on_trade(Market.SPOT, agg_trade(2, price="0"))
    made.on_trade(Market.SPOT, agg_trade(2, first_id=-1))
    made.on_trade(Market.SPOT, agg_trade(2))
    assert ids(made) == [1, 2]
    assert made.void_trades == 2


def test_only_configured_datasets_are_captured() -> None:
    made, _ = intake("agg_trades")
    made.on_trade(Market.SPOT, trade(1))
    assert rows(made) == []
    assert made.takes("agg_trades")
    assert not made.takes("trades")


def test_book_ticker_row_has_its_event_time_or_the_time_of_receipt() -> None:
    made, _ = intake()
    made.on_book_ticker(Market.SPOT, book_ticker(1))
    made.on_book_ticker(Market.SPOT, book_ticker(1))
    made.on_book_ticker(Market.UM, book_ticker(1, AT_MS))
    received = "1970-01-01 00:00:00.000077+00"
    assert rows(made) == [
        ["BTCUSDT", "1970-01-01", "1", "1", "2.50", "3", "4", "\\N", received],
        [
            "BTCUSDT.P", "2025-11-21", "1", "1", "2.50", "3", "4",
            "2025-11-21 09:20:00.000000+00", received,
        ],
    ]  # fmt: skip


def test_trades_without_room_are_requested_later() -> None:
    made, losses = intake("agg_trades", max_rows=1_500)
    for number in range(1_501):
        made.on_trade(Market.SPOT, agg_trade(number))
    (missing_range,) = made.sequence("agg_trades", "BTCUSDT").missing_ranges
    assert (missing_range.first_id, missing_range.last_id) == (0, 999)
    assert ids(made) == list(range(1_000, 1_501))
    assert losses == []


def test_book_tickers_without_room_are_recorded_as_lost() -> None:
    made, losses = intake("book_tickers", max_rows=1_500)
    for number in range(1_501):
        made.on_book_ticker(Market.SPOT, book_ticker(number))
    assert [(loss.symbol, loss.cause, loss.rows) for loss in losses] == [
        ("BTCUSDT", BUFFER_FULL, 1_000)
    ]


def test_liquidation_is_a_row_once_whatever_stream_repeats_it() -> None:
    made, _ = intake("liquidations")
    made.on_liquidation(Market.UM, liquidation())
    made.on_liquidation(Market.UM, liquidation(event_ms=AT_MS + 900), 7)
    made.on_liquidation(Market.UM, liquidation(AT_MS + 1))
    first, second = rows(made)
    assert made.duplicates == 1
    assert [first[0], first[1], *first[3:6]] == [
        "BTCUSDT.P", "2025-11-21", "2025-11-21 09:20:00.000000+00",
        "2025-11-21 09:20:00.005000+00", "1970-01-01 00:00:00.000077+00",
    ]  # fmt: skip
    assert first[6:] == ["SELL", "LIMIT", "IOC", "2.50", "2.49", "0.1", "0.1", "0.1", "FILLED"]
    assert int(first[2]) < int(second[2])
