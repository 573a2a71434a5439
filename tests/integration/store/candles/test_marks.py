"""A chart's marks come from the ledgers and from the rows themselves."""

from __future__ import annotations

from decimal import Decimal

from include.domain.candles import CandleCandidate, Source, Status, silent_candle
from include.domain.timeframes import MINUTE_US, from_us
from include.store.candles.marks import read_marks, read_outages
from include.store.candles.minutes import merge_candidates
from include.store.postgres.pools import connect

T0 = 1_700_000_040_000_000


def test_repaired_and_partial_minutes_and_gaps_are_marked(database_url: str) -> None:
    def candidate(
        index: int, close: int, source: Source, evidence_us: int | None
    ) -> CandleCandidate:
        status = Status.PARTIAL if source is Source.STREAM else Status.VERIFIED
        candle = silent_candle("BTCUSDT", T0 + index * MINUTE_US, Decimal(close))
        return CandleCandidate(candle, status, source, evidence_at_us=evidence_us)

    with connect(database_url, application_name="test") as connection:
        merge_candidates(
            connection,
            [
                candidate(0, 1, Source.REST, 5),
                candidate(1, 1, Source.STREAM, None),
                candidate(2, 1, Source.REST, 5),
            ],
        )
        merge_candidates(connection, [candidate(2, 2, Source.REST, 6)])
        for start, repaired in ((1, None), (3, from_us(T0 + 9 * MINUTE_US))):
            connection.execute(
                "INSERT INTO ops.gaps (symbol, dataset, from_time, to_time, cause, repaired_at)"
                " VALUES ('BTCUSDT', 'candles_1m', %s, %s, 'cut', %s)",
                (from_us(T0 + start * MINUTE_US), from_us(T0 + (start + 1) * MINUTE_US), repaired),
            )
        found = read_marks(connection, "BTCUSDT", T0, T0 + 4 * MINUTE_US)
        assert [(one.time_us - T0) // MINUTE_US for one in found] == [1, 1, 2, 3]
        assert [one.kind for one in found] == ["gap", "partial", "repaired", "gap"]
        assert found[0].text.endswith("; open")
        assert "repaired at" in found[3].text
        assert found[2].text == "revised 1 time, now from rest"
        assert read_marks(connection, "ETHUSDT", T0, T0 + 4 * MINUTE_US) == []
        assert [
            one.kind
            for one in read_marks(connection, "BTCUSDT", T0 + MINUTE_US, T0 + 2 * MINUTE_US)
        ] == ["gap", "partial"]


def test_outages_of_the_market_and_of_the_symbol_are_marked(database_url: str) -> None:
    with connect(database_url, application_name="test") as connection:
        for symbol, start, end in (
            (None, T0, T0 + 5 * MINUTE_US),
            ("BTCUSDT", T0 + 10 * MINUTE_US, None),
            ("ETHUSDT", T0, T0 + 5 * MINUTE_US),
        ):
            connection.execute(
                "INSERT INTO ops.outages (market, symbol, minutes, cause) VALUES"
                " ('spot', %s, tstzmultirange(tstzrange(%s, %s)), 'halt')",
                (symbol, from_us(start), None if end is None else from_us(end)),
            )
        found = read_outages(connection, "BTCUSDT", T0, T0 + 60 * MINUTE_US)
        assert [one.time_us for one in found] == [T0, T0 + 10 * MINUTE_US]
        assert found[0].text.startswith("outage of the whole market, until 2023-11-14T")
        assert found[1].text == "outage of BTCUSDT, still: halt"
        assert read_outages(connection, "BTCUSDT.P", T0, T0 + 60 * MINUTE_US) == []
