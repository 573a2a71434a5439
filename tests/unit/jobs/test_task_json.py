"""JSON between tasks: every piece and result is read back as it was written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.errors import PermanentError
from include.jobs.files.pieces import InboxResult
from include.jobs.klines.pieces import DayGroup, DayPiece, LoadCounts, RestPiece
from include.jobs.task_json import TYPE, TYPES, from_json, to_json

st.register_type_strategy(float, st.floats(allow_nan=False))  # nan equals nothing


@given(st.one_of([st.from_type(one) for one in TYPES.values()]))
def test_every_type_round_trips(value: Any) -> None:
    assert from_json(json.loads(json.dumps(to_json(value)))) == value


def test_no_field_has_the_name_of_the_tag() -> None:
    assert [name for name, one in TYPES.items() if TYPE in get_type_hints(one)] == []


def test_label_of_a_piece_stays_readable_in_its_json() -> None:
    written = to_json(DayGroup("x", (DayPiece("X", "X 2024-02-29", 0, "p.zip"),)))
    assert written["label"] == "x"
    assert written["pieces"][0]["label"] == "X 2024-02-29"


class Lazy(Sequence[Any]):
    """Like Airflow's results of mapped tasks, which are fetched one by one."""

    def __init__(self, *values: Any) -> None:
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, at: Any) -> Any:
        return self._values[at]


def test_lazy_results_are_read_and_other_values_stay() -> None:
    results = Lazy(to_json(LoadCounts(dumps=1)), None, to_json(InboxResult("a", "gone")))
    assert from_json(results) == (LoadCounts(dumps=1), None, InboxResult("a", "gone"))
    assert from_json({"symbols": "BTCUSDT", "kind": "trades"}) == {
        "symbols": "BTCUSDT",
        "kind": "trades",
    }
    now = datetime(2024, 1, 1, tzinfo=UTC)
    assert from_json(now) is now


@pytest.mark.parametrize(
    "value",
    [{TYPE: "Unknown"}, to_json(RestPiece("X", "x", 0, 1)) | {"path": "x"}, {TYPE: "RestPiece"}],
)
def test_unknown_types_and_fields_are_refused(value: Any) -> None:
    with pytest.raises(PermanentError, match=r"cannot read a \w+ with .* clear the task"):
        from_json(value)


@dataclass
class Inner:
    day: date
    at: datetime


@dataclass
class Outer:
    name: str
    rows: int
    inner: tuple[Inner, ...]


def test_other_results_become_plain_json() -> None:
    value = Outer("a", 1, (Inner(date(2024, 1, 1), datetime(2024, 1, 1, tzinfo=UTC)),))
    assert to_json(value) == {
        "name": "a",
        "rows": 1,
        "inner": [{"day": "2024-01-01", "at": "2024-01-01T00:00:00+00:00"}],
    }


@pytest.mark.parametrize("value", [Decimal("1.5"), {1, 2}, object()])
def test_values_that_json_cannot_represent_are_rejected(value: Any) -> None:
    with pytest.raises(TypeError, match="must be plain JSON"):
        to_json({"value": value})
