"""The time span that a trigger form asks for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from include.errors import PermanentError

NOW = datetime(2026, 11, 21, 12, 34, 56, 789, tzinfo=UTC)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (None, None, ("2026-11-14T12:34", "2026-11-21T12:34")),
        (None, "2024-01-08T00:00:00Z", ("2024-01-01T00:00", "2024-01-08T00:00")),
        ("2024-01-01T00:00:00Z", None, ("2024-01-01T00:00", "2026-11-21T12:34")),
        ("2024-01-01T02:00:30+02:00", "2024-01-02", ("2024-01-01T00:00", "2024-01-02T00:00")),
    ],
)  # fmt: skip
def test_window_comes_from_the_form_or_ends_at_the_trigger_time(forms, start, end, expected):
    found = forms.window({"from": start, "to": end}, now=NOW, days=7)
    assert (found["start"], found["end"]) == tuple(
        datetime.fromisoformat(moment).replace(tzinfo=UTC) for moment in expected
    )


def test_window_reads_times_without_zone_as_utc(forms):
    found = forms.window({"from": "2024-01-01", "to": "2024-01-01T10:00"}, now=NOW, days=7)
    assert found["start"] == datetime(2024, 1, 1, tzinfo=UTC)
    assert found["end"] == datetime(2024, 1, 1, 10, tzinfo=UTC)


def test_check_scope_is_changed_rows_unless_the_form_has_a_time(forms):
    assert forms.check_scope({"from": None, "to": None}, now=NOW) == {"scope": "changed"}
    end = datetime(2024, 1, 2, tzinfo=UTC)
    assert forms.check_scope({"from": None, "to": "2024-01-02"}, now=NOW) == {
        "scope": "window",
        "start": end - timedelta(days=1),
        "end": end,
    }


@pytest.mark.parametrize(
    ("start", "end", "complaint"),
    [
        ("2024-13-01", None, "from='2024-13-01'"),
        ("2024-01-02", "2024-01-01", "is empty"),
        ("2024-01-01", "2024-01-01", "is empty"),
    ],
)
def test_window_rejects_bad_times_and_empty_spans(forms, start, end, complaint):
    with pytest.raises(PermanentError, match=complaint):
        forms.window({"from": start, "to": end}, now=NOW, days=7)
