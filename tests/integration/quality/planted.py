"""Faults, each planted in a symbol of its own or in a whole market, and where its rule finds it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from psycopg import sql

from tests.integration.quality.markets import AT, END, MINUTE, NOBODY_TRADED, SILENT, START

MIDNIGHT = START.replace(hour=0)
LATER = START + timedelta(minutes=82)
"""The same, with an hour of trades before it."""
HALT = START + timedelta(minutes=120)
TOMORROW = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(days=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DIGEST = "a" * 64


@dataclass(frozen=True)
class Fault:
    """What is planted, and where its rule finds it.

    Attributes:
        times: that the rule reports, in order.
        market: "every um": a fault of all symbols together.
        trades: whether the symbol's trades are captured.
    """

    rule: str
    statements: tuple[sql.Composed, ...]
    times: tuple[datetime, ...] = (AT,)
    at: datetime = AT
    market: str = "spot"
    trades: bool = False


def written(form: str) -> Callable[[str], sql.Composed]:
    """A statement with a placeholder for what differs."""
    return lambda text: sql.SQL(form).format(sql.SQL(text))


row = written("UPDATE market.candles_1m SET {} WHERE symbol = %(symbol)s AND open_time = %(at)s")
rows_from = written(
    "UPDATE market.candles_1m SET {} WHERE symbol = %(symbol)s AND open_time >= %(at)s"
)
later_row = written(
    "INSERT INTO market.candles_1m (symbol, open_time, open, high, low, close, volume,"
    " quote_volume, trade_count, taker_buy_volume, taker_buy_quote_volume, status, source,"
    " source_rank, evidence_at) SELECT symbol, %(at)s, open, high, low, close, volume,"
    " quote_volume, trade_count, taker_buy_volume, taker_buy_quote_volume, status, source,"
    " source_rank, evidence_at FROM market.candles_1m WHERE symbol = %(symbol)s AND {}"
)
halt = written("UPDATE market.candles_1m SET {} WHERE symbol LIKE '%%.P' AND open_time >= %(at)s")
no_rows = written("DELETE FROM market.candles_1m WHERE symbol = %(symbol)s AND {}")
trade = written("UPDATE market.trades SET {} WHERE symbol = %(symbol)s AND trade_id = 100")
aggregate = written(
    "UPDATE market.agg_trades SET {} WHERE symbol = %(symbol)s AND agg_trade_id = 101"
)
listing = written("UPDATE market.instruments SET {} WHERE symbol = %(symbol)s")
second_listing = written(
    "INSERT INTO market.instruments SELECT symbol, {}, market, exchange_symbol, base_asset,"
    " quote_asset, status, tick_size, step_size, filters, quote_volume_is_exact, seen_at"
    " FROM market.instruments WHERE symbol = %(symbol)s"
)
outage = written(
    "INSERT INTO ops.outages (market, symbol, minutes, cause) VALUES"
    " ({}, %(symbol)s, tstzmultirange(tstzrange(%(at)s, %(until)s)), 'halt')"
)
gap = written(
    "INSERT INTO ops.gaps (symbol, cause, from_time, to_time, opened_at, repaired_at) VALUES"
    " (%(symbol)s, 'connection lost', {})"
)
file = written(
    "INSERT INTO ops.dump_files (symbol, fetched_at, path, checksum, kind, rows, rejected, verdict)"
    " VALUES (%(symbol)s, %(at)s, %(symbol)s || '.zip', {})"
)
coverage = written(
    "INSERT INTO ops.coverage (symbol, source, day, minutes) VALUES (%(symbol)s, {})"
)
day = written(
    "INSERT INTO ops.reconciliations (symbol, day, rest_minutes, daily_minutes, monthly_minutes,"
    " live_minutes, rest_differing, daily_differing, monthly_differing, revised_minutes,"
    " outage_minutes, reconciled_at, verdict, is_complete, live_differing, expected_minutes,"
    " stored_minutes, verified_minutes) VALUES (%(symbol)s, '2025-03-01', 240, 240, 0, 240, 0, 0,"
    " 0, 0, 0, %(until)s, {})"
)
lost = written(
    "INSERT INTO ops.discrepancies (symbol, open_time, winner_source, winner_status, found_at,"
    " loser_source, loser_status, loser_evidence_at, loser_open, loser_high, loser_low,"
    " loser_close, loser_volume, loser_quote_volume, loser_trade_count, loser_taker_buy_volume,"
    " loser_taker_buy_quote_volume) SELECT symbol, open_time, source, status, {}, open, high, low,"
    " close + 1, volume, quote_volume, trade_count, taker_buy_volume, taker_buy_quote_volume"
    " FROM market.candles_1m WHERE symbol = %(symbol)s AND open_time = %(at)s"
)
THREE_DAYS_AGO = "'2025-02-26', '{[2025-02-26 00:00Z, 2025-02-26 09:00Z)}'"
OF_A_FILE = "status = 'unconfirmed', source = 'file', evidence_at = NULL, source_rank = 20"
UNIT = sql.SQL("UPDATE ops.dump_files SET time_unit = 'ms' WHERE symbol = %(symbol)s").format()

FAULTS = [
    Fault("prices_are_positive", (row("low = 0"),)),
    Fault("silent_minutes_have_one_price", (row("high = 101"),), times=(SILENT,), at=SILENT),
    *(
        Fault("quote_volume_fits_the_prices", (row(change),))
        for change in (
            "quote_volume = 203.00000005",
            "taker_buy_quote_volume = 98.99999995",
            "volume = 20",
        )
    ),
    *(
        Fault("trade_count_fits_the_ids", (row(change),))
        for change in (
            "first_trade_id = first_trade_id + 1",
            "last_trade_id = last_trade_id + 1",
            "trade_count = 5",
            "trade_count = 3",
        )
    ),
    Fault("trade_count_fits_the_ids", (row("trade_count = 5"),), market="um"),
    *(
        Fault(
            "streamed_minutes_are_confirmed",
            (
                row(
                    f"status = {status}, source = 'stream', evidence_at = NULL,"
                    f" source_rank = {rank}"
                ),
            ),
        )
        for status, rank in (("'unconfirmed'", "40"), ("'partial'", "10"))
    ),
    Fault("prices_lie_on_the_tick", (row("close = 100.005"),)),
    Fault("volumes_lie_on_the_step", (row("volume = 2.00001"),)),
    Fault("volumes_lie_on_the_step", (row("taker_buy_volume = 1.00001"),)),
    Fault(
        "rows_lie_within_a_listing",
        (listing("listed_to = %(at)s"),),
        times=(END - 2 * MINUTE, END - MINUTE),
        at=END - 2 * MINUTE,
    ),
    Fault(
        "symbols_are_registered",
        (sql.SQL("DELETE FROM market.instruments WHERE symbol = %(symbol)s").format(),),
        times=(START,),
    ),
    Fault(
        "minutes_have_begun",
        (
            sql.SQL("SELECT ops.ensure_partition('market.candles_1m', %(at)s)").format(),
            later_row("open_time = '2025-03-01 08:32Z'"),
        ),
        times=(TOMORROW,),
        at=TOMORROW,
    ),
    Fault("rows_lie_outside_outages", (outage("'spot'"),), (AT, AT + MINUTE, AT + 2 * MINUTE)),
    *(
        Fault("volume_equals_its_trades", (statement,), trades=True)
        for statement in (
            row("volume = volume + 0.001"),
            row("taker_buy_volume = 1.001"),
            row("high = 101.51"),
            trade("quantity = 0.51"),
            trade("is_buyer_maker = true"),
        )
    ),
    Fault("no_minute_is_missing", (no_rows("open_time = %(at)s"),)),
    Fault("no_minute_is_missing", (no_rows("open_time = %(at)s"),), market="um"),
    Fault("no_minute_is_missing", (no_rows("open_time = %(at)s"),), times=(SILENT,), at=SILENT),
    Fault("no_minute_is_missing", (no_rows("open_time >= %(at)s AND open_time < %(until)s"),)),
    Fault(
        "first_minutes_are_there",
        (
            sql.SQL(
                "UPDATE market.instruments SET listed_from = %(at)s WHERE symbol = %(symbol)s"
            ).format(),
        ),
        times=(START - 5 * MINUTE,),
        at=START - 5 * MINUTE,
        market="um",
    ),
    Fault(
        "trade_ids_are_continuous",
        (rows_from("first_trade_id = first_trade_id + 7, last_trade_id = last_trade_id + 7"),),
    ),
    Fault(
        "trade_ids_are_continuous",
        (rows_from("first_trade_id = first_trade_id - 6, last_trade_id = last_trade_id - 6"),),
        market="um",
    ),
    Fault(  # the next row that has ids proves how many trades a row without any had
        "trade_ids_are_continuous",
        (row("first_trade_id = NULL, last_trade_id = NULL, trade_count = 5"),),
        times=(AT + MINUTE,),
    ),
    Fault(  # a false outage: it has trades
        "trade_ids_are_continuous",
        (no_rows("open_time >= %(at)s AND open_time < %(until)s"), outage("'spot'")),
        times=(AT + 4 * MINUTE,),
    ),
    Fault(
        "closes_do_not_jump",
        (row("high = 200, close = 200"),),
        times=(LATER, LATER + MINUTE),
        at=LATER,
    ),
    Fault("halts_are_recorded", (halt(NOBODY_TRADED),), (HALT,), HALT, market="every um"),
    Fault("symbols_are_not_stale", (no_rows("open_time > %(at)s"),)),
    Fault(  # a stream of three days ago, and a file since
        "streams_do_not_end_alone",
        (no_rows("open_time <> %(at)s"), row(OF_A_FILE), coverage(f"'kline', {THREE_DAYS_AGO}")),
    ),
    *(
        Fault("stored_rows_have_won", (lost(change),))
        for change in (
            "now(), 'rest', 'verified', open_time",
            "now(), 'kline', 'verified', evidence_at + interval '1 second'",
        )
    ),
    Fault(
        "reconciled_days_stay_verified",
        (
            day("'agrees', true, 0, 240, 240, 240"),
            row(OF_A_FILE),
        ),
    ),
    Fault("verdict_fits_its_figures", (day("'agrees', true, 1, 240, 240, 240"),), (MIDNIGHT,)),
    Fault("verdict_fits_its_figures", (day("'differs', true, 0, 240, 240, 240"),), (MIDNIGHT,)),
    Fault("verdict_fits_its_figures", (day("'agrees', false, 0, 240, 240, 240"),), (MIDNIGHT,)),
    Fault("figures_fit_a_day", (day("'agrees', true, 0, 240, 240, 239"),), (MIDNIGHT,)),
    Fault("figures_fit_a_day", (day("'agrees', true, 0, 1441, 1441, 1441"),), (MIDNIGHT,)),
    Fault(
        "agreeing_days_still_agree",
        (
            day("'agrees', true, 0, 240, 240, 240"),
            lost("now(), 'dump_monthly', 'verified', '2025-02-01 00:00Z'::timestamptz"),
            row("source = 'rest', source_rank = 80"),
        ),
        (MIDNIGHT,),
    ),
    Fault(  # without an entry in ops.gaps
        "trade_rows_are_contiguous",
        (
            sql.SQL(
                "DELETE FROM market.agg_trades WHERE symbol = %(symbol)s AND agg_trade_id = 101"
            ).format(),
            sql.SQL(
                "UPDATE market.agg_trades SET trade_time = %(at)s"
                " WHERE symbol = %(symbol)s AND agg_trade_id = 102"
            ).format(),
        ),
        trades=True,
    ),
    Fault(
        "trade_times_ascend",
        (aggregate("trade_time = %(at)s - interval '10 minutes'"),),
        times=(AT - 10 * MINUTE,),
        trades=True,
    ),
    Fault(
        "listings_do_not_overlap",
        (
            listing("listed_to = '2024-06-02'"),
            second_listing("'2024-06-01', NULL"),
        ),
        times=(datetime(2024, 6, 1, tzinfo=UTC),),
    ),
    *(
        Fault(rule, (listing(change),), times=(EPOCH,))
        for rule, change in (
            ("symbol_names_its_market", "exchange_symbol = 'OTHER'"),
            ("filters_fit_the_steps", "tick_size = 0.1"),
            ("filters_fit_the_steps", "step_size = 0.1"),
            (
                "filters_fit_the_steps",
                """filters = '{"LOT_SIZE": {"minQty": "2", "maxQty": "1"}}'""",
            ),
        )
    ),
    Fault(
        "registry_is_fresh",
        (listing("seen_at = seen_at - interval '49 hours'"),),
        times=(END - timedelta(hours=49),),
    ),
    Fault(
        "checksum_is_a_digest",
        (file("'not a digest', 'klines', 1440, 0, 'loaded'"), UNIT),
        times=(),
    ),
    Fault("kind_is_known", (file(f"'{DIGEST}', 'candles', 0, 0, 'missing'"),), times=()),
    *(
        Fault("unusable_files_give_no_rows", (file(change),))
        for change in (
            f"'{DIGEST}', 'klines', 7, 0, 'corrupt'",
            f"'{DIGEST}', 'klines', 1440, 0, 'loaded'",
        )
    ),
    Fault("gaps_are_minutes", (gap("%(at)s, %(until)s + interval '1 second', now(), now()"),)),
    Fault(
        "repaired_gaps_are_verified",
        (
            gap("%(at)s, %(until)s, now(), now()"),
            row(OF_A_FILE),
        ),
    ),
    Fault(
        "gaps_are_repaired_in_time", (gap("%(at)s, %(until)s, now() - interval '2 hours', NULL"),)
    ),
    Fault(
        "coverage_has_a_source",
        (coverage("'rumour', '2025-03-01', tstzmultirange(tstzrange(%(at)s, %(until)s))"),),
        times=(MIDNIGHT,),
    ),
    Fault(
        "coverage_is_minutes",
        (
            coverage(
                "'rest', '2025-03-01', tstzmultirange(tstzrange(%(at)s, %(at)s + interval '1 s'))"
            ),
        ),
        times=(MIDNIGHT,),
    ),
]

REFUSED = [
    *(
        (row(change), constraint)
        for change, constraint in (
            ("close = NULL", ""),
            ("trade_count = NULL", ""),
            ("status = NULL", ""),
            ("quote_volume = 'NaN'", "candles_1m_volumes_are_amounts"),
            ("high = 'Infinity'", "candles_1m_high_is_the_highest"),
            ("open_time = open_time + interval '30 s'", "candles_1m_open_time_is_a_full_minute"),
            ("open_time = open_time + interval '1 minute'", "_pkey"),
            ("low = -1", "candles_1m_low_is_the_lowest"),
            ("high = 99.5", "candles_1m_high_is_the_highest"),
            ("low = 100.01", "candles_1m_low_is_the_lowest"),
            ("volume = 0.999", "candles_1m_volumes_are_amounts"),
            ("taker_buy_quote_volume = 200.25000001", "candles_1m_volumes_are_amounts"),
            ("taker_buy_volume = -0.00000001", "candles_1m_volumes_are_amounts"),
            ("volume = 0, taker_buy_volume = 0", "candles_1m_no_trades_means_no_volume"),
            ("trade_count = 0", "candles_1m_no_trades_means_no_volume"),
            ("status = 'sure'", "candles_1m_source_and_status_fit"),
            ("source = 'rumour'", "candles_1m_source_and_status_fit"),
            ("source = 'stream', source_rank = 40", "candles_1m_source_and_status_fit"),
            ("status = 'partial', source_rank = 10", "candles_1m_source_and_status_fit"),
            ("evidence_at = NULL", "candles_1m_source_and_status_fit"),
            ("source = 'rest'", "candles_1m_rank_fits_the_source"),
            ("source_rank = 10", "candles_1m_rank_fits_the_source"),
        )
    ),
    (trade("price = 0"), "trades_price_check"),
    (trade("trade_id = 101"), "_pkey"),
    (aggregate("quantity = 'NaN'"), "agg_trades_quantity_check"),
    (aggregate("trade_time = %(at)s + interval '1 day'"), "agg_trades_day_fits_the_trade_time"),
    (aggregate("last_trade_id = first_trade_id - 1"), "agg_trades_ids_ascend"),
    (second_listing("'2025-03-01 00:00Z', NULL"), "instruments_one_open_listing"),
    (listing("listed_to = '1969-12-31'"), "instruments_listing_has_a_length"),
    (listing("market = 'options'"), "instruments_market_check"),
    (listing("tick_size = 0"), "instruments_tick_size_check"),
    (listing("step_size = -1"), "instruments_step_size_check"),
    (file(f"'{DIGEST}', 'klines', 0, -1, 'corrupt'"), "dump_files_rejected_check"),
    (gap("%(until)s, %(at)s, now(), now()"), "gaps_have_a_length"),
    (
        coverage("'rest', '2025-03-02', tstzmultirange(tstzrange(%(at)s, %(until)s))"),
        "coverage_stays_within_its_day",
    ),
]
"""Faults that no rule has to find, each with the end of the name of the constraint that refuses it;
empty: NOT NULL."""
