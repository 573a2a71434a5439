"""The matrix's cells of the running streamer and its start."""

from __future__ import annotations

from tests.integration.faults.cells import Cell

STREAMER: dict[str, Cell] = {
    # --- connections
    "cut": Cell(
        happens=(
            "reconnects after a short random wait. If no trade was missed, aggregation "
            "continues; else the open candle is seeded from a kline, and minutes that closed "
            "meanwhile come from REST"
        ),
        events=("stream_disconnected", "stream_connected"),
    ),
    "stall": Cell(
        happens="takes a connection without a frame for `STALE_STREAM_S` for dead and makes a new "
        "one; the minutes of the stall come from REST",
        events=("stream_disconnected", "minutes_repaired"),
    ),
    "shutdown": Cell(
        happens=(
            "opens another connection that takes over before the exchange closes this one; if "
            "that fails in time, it reacts as to `cut`"
        ),
        events=("stream_rotated",),
    ),
    "refuse": Cell(
        happens="tries again, with waits that grow to half a minute; then the minutes of the whole "
        "time come from REST",
        events=("stream_disconnected", "minutes_repaired"),
        todo="if it stays: `reason` says what the exchange answers; `HTTP 403` or `451` is a "
        "blocked address, set `HTTPS_PROXY`",
    ),
    # --- frames
    "duplicate": Cell(happens="counts each trade id once"),
    "reorder": Cell(
        happens=(
            "holds a trade up to 250 ms for the ids that it overtook, and adds each once; "
            "later ones count as missing, the candle is seeded again from a kline that has them, "
            "and the closed kline decides"
        ),
    ),
    "late": Cell(
        happens="aggregates them into their minute, where what overtook them could wait; else the "
        "minute is put down by its closed kline, which has the late trades. They do not count for "
        "the next minute",
    ),
    "drop": Cell(
        happens=(
            "seeds the candle again from a kline if trades are missing. If klines stop, it "
            "resubscribes and asks REST; if trades stop, it stores klines and resubscribes"
        ),
        events=("trades_missing", "stream_dead", "minutes_repaired"),
        todo="if it stays: a network that loses data",
    ),
    "void": Cell(
        happens="leaves out what has no price, no quantity or no trade ids; the true trade may "
        "follow under the same id. If none follows, the closed kline decides",
    ),
    "malformed": Cell(
        happens="counts the frame and continues; its contents count as lost",
        events=("bad_frame",),
        todo="if it goes on, the exchange changed its format: report the text in the log",
    ),
    "unknown": Cell(
        happens="passes over events it does not know and ignores new fields",
        events=("unknown_frame",),
    ),
    "kline_lag": Cell(
        happens="waits three seconds for the closed kline, then enters the candle as "
        "`unconfirmed` and asks REST; the late kline still verifies it",
    ),
    "wrong_kline": Cell(
        happens="stores its own candle as `unconfirmed` where the ids of spot trades prove that "
        "it has each trade, and REST decides. Elsewhere the kline is stored, until the daily "
        "comparison with REST",
        events=("kline_differs", "minutes_repaired"),
        todo="if it goes on, report the rows of `ops.discrepancies`",
    ),
    # --- the market
    "halt": Cell(
        happens=(
            "writes no rows. REST is asked after 1, 2, 4, 8 and 16 minutes and every 16 from "
            "then on, and has none: the minutes become `ops.outages`. On USD-M empty klines go on, "
            "and so do the rows"
        ),
        events=("symbol_silent", "outage_recorded", "symbol_silence_ended"),
    ),
    "delisting": Cell(
        happens=(
            "ends with the last minute; asks REST less and less often, finally every 16 "
            "minutes, and logs it once"
        ),
        events=("symbol_silent",),
        todo="take the symbol off `SYMBOLS`",
    ),
    "new_listing": Cell(
        happens=(
            "continues with the named symbols; a pattern that matches it streams it from its "
            "first minute on"
        ),
        todo="name it, where no pattern does",
    ),
    "ticker_reuse": Cell(
        happens="aggregates the new instrument's trades from their first minute, whatever their "
        "ids; the time between is an outage",
        events=("symbol_silent", "symbol_silence_ended"),
        todo="restart the streamer if `trade_ids_restarted` is logged: rows are right, but the "
        "new instrument may have other steps",
    ),
    # --- REST, asked for minutes that the stream could not prove
    "rest_lag": Cell(
        happens="asks for a minute 30 s after its end, so that a lag below that does no harm; of "
        "a longer one, takes no last row of an answer that may be unfinished, and asks again",
        events=("minutes_repaired",),
    ),
    "slow_rest": Cell(
        happens="goes on streaming meanwhile; a request that outlasts `HTTP_TIMEOUT_S` is tried "
        "again",
        events=("minutes_repaired",),
    ),
    "rest_error": Cell(
        happens="tries again after 5xx, waits as long as 429 and 418 ask for; after 403, 451 and a "
        "proxy's 407 asks that market again ten minutes later. Minutes that it does not get within "
        "twenty tries, or ten refusals, are left to `repair_gaps`",
        events=("minutes_repaired", "repair_postponed"),
    ),
    "rest_malformed": Cell(happens="tries again", events=("minutes_repaired",)),
    "rest_cut": Cell(happens="tries again", events=("minutes_repaired",)),
    "rest_stale": Cell(
        happens=(
            "retries until the rows arrive; records no outage from a page that lacks its last rows"
        ),
        events=("minutes_repaired",),
    ),
    "rest_void": Cell(
        happens=(
            "receives them when raw capture (`CAPTURE`) requests missing trades by id: stores "
            "none of them, and the true trade of the same id"
        ),
    ),
}

START: dict[str, Cell] = {
    "refuse": Cell(
        happens="has its data from REST, and keeps trying to connect",
        events=("stream_disconnected", "stream_connected"),
    ),
    "slow_rest": Cell(
        happens="waits; a request that outlasts `HTTP_TIMEOUT_S` is tried again without end",
    ),
    "rest_error": Cell(
        happens="tries 5xx and 429 again without end; at 403 or 451 it ends, since only a person "
        "can change that",
        events=("start_postponed",),
        exit_code=1,
        says="the exchange does not serve this region",
        todo="at 403 or 451: set `HTTPS_PROXY` to a proxy that the exchange serves",
    ),
    "rest_malformed": Cell(happens="tries again without end", events=("start_postponed",)),
    "rest_cut": Cell(happens="tries again without end", events=("start_postponed",)),
    "rest_stale": Cell(
        happens=(
            "requests the first minute of a new listing three times before it accepts that it "
            "has no trades; requests no other klines"
        ),
    ),
    "halt": Cell(
        happens="streams a symbol that is named although it does not trade now; a pattern leaves "
        "it out",
        events=("symbol_not_trading",),
    ),
    "delisting": Cell(
        happens="fills a named symbol up to its last minute, and waits; a pattern skips it",
        events=("symbol_not_trading",),
        todo="take the symbol off `SYMBOLS`",
    ),
    "new_listing": Cell(
        happens="has it from its first minute on where it was listed an hour before the last "
        "stored minute of its market, or later, or where its first row is not older than the "
        "lookback (`FILL_LOOKBACK_MINUTES`, and as far back at most); else from now on",
        todo="backfill what lies before",
    ),
    "ticker_reuse": Cell(
        happens="fills what it lacks: the old instrument's last minutes and the new one's first; "
        "the time between is an outage",
        events=("outage_recorded",),
    ),
}
