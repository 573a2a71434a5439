"""Array literals keep every value exactly."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from include.store.postgres.arrays import array_of, array_of_names, joined

NAMES = ['A"B\\C', "{NULL,'x'}", "NULL", "币安人生USDT", "a b", "", " ", "\\", '""', "1,2"]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("numeric", [Decimal("1E-18"), Decimal("123456789012345678901234567890.10"), None]),
        ("bigint", [-1, 2**63 - 1, None, 0]),
        ("boolean", [True, False, None]),
        ("timestamptz", [datetime(2026, 1, 2, 3, 4, 5, 6, UTC), None]),
        ("text", ["verified", "kline", None]),
        ("text", []),
    ],
)
def test_values_and_nulls_are_unchanged(
    connection: psycopg.Connection[Any], kind: Any, values: list[object]
) -> None:
    row = connection.execute(f"SELECT %s::{kind}[]", [array_of(values)]).fetchone()
    assert row is not None
    assert row[0] == values
    assert list(map(str, row[0])) == list(map(str, values))


def test_unusual_names_are_unchanged(connection: psycopg.Connection[Any]) -> None:
    row = connection.execute("SELECT %s::text[]", [array_of_names(NAMES)]).fetchone()
    assert row == (NAMES,)


def test_arrays_are_joined_to_one(connection: psycopg.Connection[Any]) -> None:
    parts = [array_of_names(NAMES[:4]), array_of_names(NAMES[4:5]), array_of_names(NAMES[5:])]
    row = connection.execute("SELECT %s::text[]", [joined(parts)]).fetchone()
    assert row == (NAMES,)
