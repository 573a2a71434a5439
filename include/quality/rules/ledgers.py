"""Rules about the ledgers: dump files, gaps, coverage, and verdicts of days."""

from __future__ import annotations

from include.quality.check import Check, Severity, Suite

# --- dump files

CHECKSUM_IS_A_DIGEST = Check(
    "checksum_is_a_digest",
    "the checksum of a file is a SHA-256 in hex, or empty where no file came",
    built_in="ExpectColumnValuesToMatchRegex",
    arguments={"column": "checksum", "regex": "^([0-9a-f]{64})?$"},
)

KIND_IS_KNOWN = Check(
    "kind_is_known",
    "a file is one of klines, aggTrades or trades",
    built_in="ExpectColumnValuesToMatchRegex",
    arguments={
        "column": "kind",
        "regex": "^(klines|klines_[0-9]+(m|h|d|w|mo|M)|agg_trades|trades)$",
    },
)

UNUSABLE_FILES_GIVE_NO_ROWS = Check(
    "unusable_files_give_no_rows",
    "a file that was missing, corrupt, refused or not reached has no rows, one that was loaded has "
    "a unit of time",
    """
    SELECT symbol, fetched_at AS open_time, path AS key,
        verdict || ' with ' || rows || ' rows, unit ' || coalesce(time_unit, 'none') AS detail
    FROM {{batch}}
    WHERE
        verdict IN ('missing', 'wrong_checksum', 'corrupt', 'refused', 'unreachable') AND rows > 0
        OR verdict = 'loaded' AND kind = 'klines' AND rows > 0 AND time_unit IS NULL
    """,
)

DUMP_FILES = Suite(
    "dump_files",
    "ops.dump_files",
    "SELECT * FROM ops.dump_files WHERE fetched_at >= {ledger_since}",
    (CHECKSUM_IS_A_DIGEST, KIND_IS_KNOWN, UNUSABLE_FILES_GIVE_NO_ROWS),
    key=("symbol", "path", "checksum"),
)

# --- gaps

GAPS_ARE_MINUTES = Check(
    "gaps_are_minutes",
    "a gap of candles begins and ends at a full minute",
    """
    SELECT symbol, from_time AS open_time, id::text AS key,
        dataset || ' until ' || to_time AS detail
    FROM {{batch}}
    WHERE
        dataset = 'candles_1m'
        AND (extract(second FROM from_time) <> 0 OR extract(second FROM to_time) <> 0)
    """,
)

# no_minute_is_missing reports minutes without a row.
REPAIRED_GAPS_ARE_VERIFIED = Check(
    "repaired_gaps_are_verified",
    "a gap of candles is closed only when each of its rows is verified",
    """
    SELECT
        symbol,
        from_time AS open_time,
        id::text AS key,
        'closed at ' || repaired_at || ' with ' || unsure.rows
        || ' rows not verified, the first at ' || unsure.first_time AS detail
    FROM (SELECT * FROM {{batch}}) AS gap, LATERAL (
        SELECT count(*) AS rows, min(candle.open_time) AS first_time
        FROM market.candles_1m AS candle
        WHERE
            candle.symbol = gap.symbol
            AND candle.open_time >= gap.from_time AND candle.open_time < gap.to_time
            AND candle.status <> 'verified'
    ) AS unsure
    WHERE dataset = 'candles_1m' AND repaired_at IS NOT NULL AND unsure.rows > 0
    """,
)

GAPS_ARE_REPAIRED_IN_TIME = Check(
    "gaps_are_repaired_in_time",
    "no gap of candles is open for longer than QUALITY_UNVERIFIED_AFTER_MINUTES",
    """
    SELECT
        symbol,
        from_time AS open_time,
        id::text AS key,
        cause || ' until ' || to_time || ', ' || attempts || ' attempts'
        || coalesce(': ' || (detail ->> 'error'), '') AS detail
    FROM {{batch}}
    WHERE
        dataset = 'candles_1m' AND repaired_at IS NULL
        AND opened_at < now() - {unverified_after}
    """,
    Severity.WARNING,
)

GAPS = Suite(
    "gaps",
    "ops.gaps",
    "SELECT * FROM ops.gaps WHERE repaired_at IS NULL OR repaired_at >= {ledger_since}",
    (GAPS_ARE_MINUTES, REPAIRED_GAPS_ARE_VERIFIED, GAPS_ARE_REPAIRED_IN_TIME),
    key=("symbol", "id"),
)

# --- coverage

COVERAGE_HAS_A_SOURCE = Check(
    "coverage_has_a_source",
    "coverage belongs to a source of candles",
    """
    SELECT symbol, day::timestamp AT TIME ZONE 'UTC' AS open_time, source AS key, source AS detail
    FROM {{batch}}
    WHERE source NOT IN ({sources})
    """,
)

COVERAGE_IS_MINUTES = Check(
    "coverage_is_minutes",
    "the ranges of an entry begin and end at full minutes",
    """
    SELECT
        symbol,
        day::timestamp AT TIME ZONE 'UTC' AS open_time,
        source AS key,
        'from ' || lower(minutes) || ' to ' || upper(minutes) AS detail
    FROM {{batch}}
    WHERE extract(second FROM lower(minutes)) <> 0 OR extract(second FROM upper(minutes)) <> 0
    """,
)

COVERAGE = Suite(
    "coverage",
    "ops.coverage",
    "SELECT * FROM ops.coverage WHERE day >= ({ledger_since} AT TIME ZONE 'UTC')::date",
    (COVERAGE_HAS_A_SOURCE, COVERAGE_IS_MINUTES),
    key=("symbol", "source", "day"),
)

# --- verdicts

VERDICT_FITS_ITS_FIGURES = Check(
    "verdict_fits_its_figures",
    "a day differs if any source does, else agrees if it is complete, else is incomplete",
    """
    SELECT
        symbol,
        day::timestamp AT TIME ZONE 'UTC' AS open_time,
        verdict || ', ' || CASE WHEN is_complete THEN 'complete' ELSE 'not complete' END || ', '
        || live_differing + rest_differing + daily_differing + monthly_differing
        || ' minutes differ' AS detail
    FROM {{batch}}
    WHERE verdict <> CASE
        WHEN live_differing + rest_differing + daily_differing + monthly_differing > 0
            THEN 'differs'
        WHEN is_complete THEN 'agrees'
        ELSE 'incomplete'
    END
    """,
)

FIGURES_FIT_A_DAY = Check(
    "figures_fit_a_day",
    "a day has at most 1,440 minutes, no more verified than stored, and is complete only when "
    "every stored one is verified",
    """
    SELECT
        symbol,
        day::timestamp AT TIME ZONE 'UTC' AS open_time,
        expected_minutes || ' expected, ' || stored_minutes || ' stored, ' || verified_minutes
        || ' verified, ' || outage_minutes || ' of outages' AS detail
    FROM {{batch}}
    WHERE
        greatest(
            expected_minutes, stored_minutes + outage_minutes, live_minutes, rest_minutes,
            daily_minutes, monthly_minutes
        ) > 1440
        OR least(
            expected_minutes, stored_minutes, verified_minutes, outage_minutes, revised_minutes
        ) < 0
        OR verified_minutes > stored_minutes OR revised_minutes > stored_minutes
        OR is_complete AND (verified_minutes < stored_minutes OR stored_minutes < expected_minutes)
    """,
)

# A file published later has other values; reconcile_candles compares the day again.
AGREEING_DAYS_STILL_AGREE = Check(
    "agreeing_days_still_agree",
    "no source has contradicted the stored rows of a day since it agreed",
    """
    SELECT
        symbol,
        day::timestamp AT TIME ZONE 'UTC' AS open_time,
        later.minutes || ' minutes, contradicted by ' || later.sources || ' since '
        || reconciled_at AS detail
    FROM (SELECT * FROM {{batch}}) AS judged, LATERAL (
        SELECT
            count(DISTINCT lost.open_time) AS minutes,
            string_agg(DISTINCT lost.loser_source, ', ') AS sources
        FROM ops.discrepancies AS lost, market.candles_1m AS candle
        WHERE
            lost.symbol = judged.symbol
            AND lost.open_time >= judged.day::timestamp AT TIME ZONE 'UTC'
            AND lost.open_time < (judged.day + 1)::timestamp AT TIME ZONE 'UTC'
            AND lost.found_at > judged.reconciled_at
            AND lost.loser_source IN ({exchange_sources})
            AND candle.symbol = lost.symbol AND candle.open_time = lost.open_time
            AND candle.source <> lost.loser_source
            AND (
                lost.loser_open, lost.loser_high, lost.loser_low, lost.loser_close,
                lost.loser_volume, lost.loser_quote_volume, lost.loser_trade_count,
                lost.loser_taker_buy_volume, lost.loser_taker_buy_quote_volume
            ) IS DISTINCT FROM (
                candle.open, candle.high, candle.low, candle.close,
                candle.volume, candle.quote_volume, candle.trade_count,
                candle.taker_buy_volume, candle.taker_buy_quote_volume
            )
    ) AS later
    WHERE verdict = 'agrees' AND later.minutes > 0
    """,
    Severity.WARNING,
)

VERDICTS = Suite(
    "verdicts",
    "ops.reconciliations",
    """
    SELECT * FROM ops.reconciliations
    WHERE
        reconciled_at >= {ledger_since}
        OR (symbol, day) IN (
            SELECT lost.symbol, (lost.open_time AT TIME ZONE 'UTC')::date
            FROM ops.discrepancies AS lost
            WHERE lost.found_at >= {ledger_since}
        )
    """,
    (VERDICT_FITS_ITS_FIGURES, FIGURES_FIT_A_DAY, AGREEING_DAYS_STILL_AGREE),
    key=("symbol", "day"),
)

# --- about candles, by what the ledgers say of them

# Compares rank and time of evidence, the first keys of the merge order.
STORED_ROWS_HAVE_WON = Check(
    "stored_rows_have_won",
    "no candidate in ops.discrepancies with other values has more evidence than the stored row",
    """
    SELECT
        candle.symbol,
        candle.open_time,
        'stored from ' || candle.source || coalesce(' of ' || candle.evidence_at, '') || ', but '
        || lost.loser_source || coalesce(' of ' || lost.loser_evidence_at, '') || ' closes at '
        || lost.loser_close AS detail
    FROM (SELECT * FROM {{batch}}) AS candle, ops.discrepancies AS lost
    WHERE
        lost.symbol = candle.symbol AND lost.open_time = candle.open_time
        AND (
            lost.loser_open, lost.loser_high, lost.loser_low, lost.loser_close,
            lost.loser_volume, lost.loser_quote_volume, lost.loser_trade_count,
            lost.loser_taker_buy_volume, lost.loser_taker_buy_quote_volume
        ) <> (
            candle.open, candle.high, candle.low, candle.close,
            candle.volume, candle.quote_volume, candle.trade_count,
            candle.taker_buy_volume, candle.taker_buy_quote_volume
        )
        AND (
            CASE WHEN lost.loser_status = 'partial' THEN {partial_rank}
                ELSE CASE lost.loser_source {ranks} END
            END,
            coalesce(lost.loser_evidence_at, '-infinity')
        ) > (candle.source_rank, coalesce(candle.evidence_at, '-infinity'))
    """,
)

RECONCILED_DAYS_STAY_VERIFIED = Check(
    "reconciled_days_stay_verified",
    "every row of a completely reconciled day is verified",
    """
    SELECT symbol, open_time, status || ' on a completely reconciled day' AS detail
    FROM (SELECT * FROM {{batch}}) AS candle
    WHERE
        status IN ('unconfirmed', 'partial') AND source NOT IN ({exchange_sources})
        AND EXISTS (
            SELECT FROM ops.reconciliations AS judged
            WHERE
                judged.symbol = candle.symbol
                AND judged.day = (candle.open_time AT TIME ZONE 'UTC')::date
                AND judged.is_complete
                AND candle.updated_at < judged.reconciled_at
        )
    """,
)

LEDGERED_CANDLE_CHECKS = (STORED_ROWS_HAVE_WON, RECONCILED_DAYS_STAY_VERIFIED)

LEDGERS = (DUMP_FILES, GAPS, COVERAGE, VERDICTS)
