"""Checks by name of symbol; the rules themselves are tested in ``tests/integration/quality``."""

from __future__ import annotations

import pytest

from include.config import Settings
from include.errors import PermanentError
from include.jobs.quality import check_quality, check_rules
from include.store.candles.minutes import merge_candidates
from include.store.postgres.pools import connect
from tests.unit.store.candidates import candidate


def test_symbol_that_the_database_does_not_have_is_refused(raw_settings: Settings) -> None:
    with connect(raw_settings.url_for("jobs"), application_name="test") as connection:
        merge_candidates(connection, [candidate()])
    known = candidate().candle.symbol
    assert check_rules(settings=raw_settings, run_id="1", scope="all", symbols=[known]).results
    for wrong, told in (
        (f"{known}X", rf"no symbol .*; did you mean {known}\?"),
        ("NOPE", "no symb"),
    ):
        with pytest.raises(PermanentError, match=told):
            check_quality(settings=raw_settings, run_id="2", symbols=[known, wrong])
