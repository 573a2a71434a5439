"""Outages of any age are listed, newest first, in a bounded number of lines."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cli.terminal.outage_lines import outage_lines, outage_values
from include.store.ledgers.outages import Outage

HALT = datetime(2018, 2, 8, 0, 29, tzinfo=UTC)
OLD = Outage("spot", "halted", HALT, HALT + timedelta(hours=33), True, [])
OWN = Outage("um", "no rows", HALT, None, False, ["A.P", "B.P", "C.P", "D.P"])


def test_lines_say_when_how_long_and_whose() -> None:
    assert outage_lines([OLD, OWN]) == [
        "2018-02-08 00:29 to 2018-02-09 09:29, 1,980 min: all spot symbols (halted)",
        "2018-02-08 00:29 to ever: A.P, B.P, C.P and 1 more (no rows)",
    ]
    assert outage_lines([]) == []


def test_earlier_ones_are_counted() -> None:
    lines = outage_lines([OLD] * 12)
    assert (len(lines), lines[-1]) == (11, "and 2 earlier ones; --json shows them")


def test_json_has_each() -> None:
    assert outage_values([OLD, OWN]) == [
        {
            "market": "spot", "symbols": None, "from": "2018-02-08T00:29:00+00:00",
            "to": "2018-02-09T09:29:00+00:00", "minutes": 1980, "cause": "halted",
        },
        {
            "market": "um", "symbols": ["A.P", "B.P", "C.P", "D.P"],
            "from": "2018-02-08T00:29:00+00:00", "to": None, "minutes": None, "cause": "no rows",
        },
    ]  # fmt: skip
