"""Frames are merged while the next is made, all or none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl
import psycopg
import pytest

from include.domain.candles import Source
from include.errors import RejectedInputError
from include.store.candles import merging
from include.store.candles.merging import MergeCounts, merge_frames
from tests.integration.store.candles.merge.test_merge import frame_of
from tests.unit.store.candidates import candidate, moved

Connection = psycopg.Connection[Any]


def test_frames_are_merged_all_or_none(connection: Connection) -> None:
    def made() -> Iterator[pl.DataFrame]:
        yield frame_of([moved(candidate(Source.REST), "AUSDT", 0)])
        raise RejectedInputError("the file ends in the middle")

    with pytest.raises(RejectedInputError, match="in the middle"):
        merge_frames(connection, made())

    assert connection.execute("SELECT count(*) FROM market.candles_1m").fetchone() == (0,)
    counts = merge_frames(
        connection, [frame_of([moved(candidate(), "AUSDT", n)]) for n in range(3)]
    )
    assert counts == MergeCounts(offered=3, inserted=3)


def test_generated_frames_survive_a_retry(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[object] = []
    count = merging._counts

    def conflicting(row: tuple[Any, ...] | None) -> MergeCounts:
        tries.append(row)
        if len(tries) == 1:
            raise psycopg.errors.SerializationFailure
        return count(row)

    monkeypatch.setattr(merging, "_counts", conflicting)
    frames = (frame_of([moved(candidate(), "AUSDT", n)]) for n in range(3))

    assert merge_frames(connection, frames) == MergeCounts(offered=3, inserted=3)
    assert len(tries) == 2
