"""Fault rules of the dump site and the files they match."""

from typing import Any

import pytest

from simulator.dumps.faults import (
    AbortDownload,
    AlterRows,
    CorruptZip,
    DropRows,
    DumpFaults,
    DumpRule,
    LatePublication,
    MissingChecksum,
    MissingFile,
    RefuseFile,
    RefuseListing,
    SlowDownload,
    TruncateZip,
)

DAY = "data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2025-01-05.zip"
MONTH = "data/spot/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2025-01.zip"


def test_rule_matches_the_paths_of_its_glob() -> None:
    faults = DumpFaults()
    faults.add(DumpRule(effect=AlterRows(rows=2), path="*/monthly/*"))
    faults.add(DumpRule(effect=MissingFile(), path="*-2025-01-05.zip"))
    assert faults.contents(MONTH) == (AlterRows(rows=2),)
    assert faults.contents(DAY) == ()
    assert faults.of(MissingFile, DAY) == [MissingFile()]
    assert faults.of(MissingFile, MONTH) == []
    assert [entry.hits for entry in faults.active()] == [1, 1]


def test_content_effects_are_in_the_order_of_their_rules() -> None:
    faults = DumpFaults()
    effects = (DropRows(rows=1), AlterRows(rows=2), CorruptZip())
    for effect in effects:
        faults.add(DumpRule(effect=effect, path="*"))
    faults.add(DumpRule(effect=MissingChecksum(), path="*"))
    assert faults.contents(DAY, counts=False) == effects
    assert {entry.hits for entry in faults.active()} == {0}


@pytest.mark.parametrize(
    ("effect", "values", "word"),
    [
        (AlterRows, {"rows": 0}, "rows"),
        (DropRows, {"rows": 0}, "rows"),
        (CorruptZip, {"flips": 0}, "flips"),
        (TruncateZip, {"keep_percent": 100}, "keep_percent"),
        (AbortDownload, {"keep_percent": -1}, "keep_percent"),
        (LatePublication, {"delay_us": 0}, "delay_us"),
        (SlowDownload, {"seconds": -1}, "seconds"),
        (RefuseFile, {"status": 200}, "status"),
        (RefuseListing, {"status": 700}, "status"),
        (DumpRule, {"effect": MissingFile(), "path": "*", "times": 0}, "times"),
    ],
)
def test_impossible_faults_are_refused_by_name(effect: Any, values: Any, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        effect(**values)
