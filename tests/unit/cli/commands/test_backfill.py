from __future__ import annotations

import pytest

from cli.commands.backfill import bounded_span_of, span_of
from include.errors import WrongValueError

NOW_US = 1_795_000_000_000_000


def test_all_history_is_offered_only_where_it_is_accepted() -> None:
    assert span_of("start", "now", now_us=NOW_US) == (None, None)
    with pytest.raises(WrongValueError, match=r"no start: .* or --from start$"):
        span_of("", "now", now_us=NOW_US)
    with pytest.raises(WrongValueError) as refused:
        bounded_span_of("", "now", now_us=NOW_US)
    assert str(refused.value) == "no start: give the first day, as --from 2026-11-01 (UTC)"
    with pytest.raises(WrongValueError, match="--from start works only for klines"):
        bounded_span_of("start", "now", now_us=NOW_US)


def test_open_end_of_a_bounded_span_is_now() -> None:
    start_us, end_us = bounded_span_of("2026-11-01", "now", now_us=NOW_US)
    assert start_us < end_us == NOW_US
