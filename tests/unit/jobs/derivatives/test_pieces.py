"""Names of series and futures as users write them, and labels of pieces."""

from __future__ import annotations

import pytest

from include.domain.series.kinds import Series
from include.domain.timeframes import DAY_US, HOUR_US
from include.errors import WrongValueError
from include.jobs.derivatives.pieces import futures_of, has_funding, label_of_span, series_from


def test_no_series_means_all() -> None:
    assert series_from("") == list(Series)
    assert series_from([]) == list(Series)


def test_series_are_named_in_any_case_and_once() -> None:
    assert series_from("mark, Funding,mark") == [Series.MARK, Series.FUNDING]


def test_an_unknown_series_names_the_known_ones() -> None:
    with pytest.raises(WrongValueError, match=r"unknown series 'oi'.* open_interest"):
        series_from("oi")


def test_spot_symbols_have_no_series() -> None:
    assert futures_of("BTCUSDT, BTCUSD_PERP", "um") == ["BTCUSDT.P", "BTCUSD_PERP"]
    with pytest.raises(WrongValueError, match=r"BTCUSDT is a spot symbol.* BTCUSDT\.P"):
        futures_of("BTCUSDT", "spot")


@pytest.mark.parametrize(
    ("symbol", "pays"),
    [
        ("BTCUSDT.P", True),
        ("BTCUSD_PERP", True),
        ("BTCUSDT_270326.P", False),
        ("BTCUSD_270326", False),
    ],
)
def test_only_perpetual_contracts_have_funding(symbol: str, pays: bool) -> None:
    assert has_funding(symbol) is pays


def test_labels_show_days_or_times() -> None:
    assert label_of_span("A.P", "mark", 0, DAY_US) == "A.P mark 1970-01-01..1970-01-02"
    assert label_of_span("A.P", "mark", HOUR_US, DAY_US) == (
        "A.P mark 1970-01-01T01:00..1970-01-02T00:00"
    )
