"""Months, days and gaps come from the cheapest reliable source, and cover what is missing."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

import pytest

from include.binance.files.dumps import DumpEntry, daily_path, monthly_path
from include.binance.rest.klines import KlinePage
from include.domain.candles import silent_candle
from include.domain.exact import ZERO
from include.domain.ranges import common
from include.domain.sourcing import REST_PART_MINUTES, FillMode
from include.domain.timeframes import DAY_US, MINUTE_US, from_us, to_us
from include.errors import PermanentError, TransientError, UnknownSymbolError
from include.jobs.klines import planning
from include.jobs.klines.dump_loading import window_of
from include.jobs.klines.pieces import BackfillPlan, minutes_in
from include.jobs.klines.planning import _Planner
from include.store.candles.history import FileState

JANUARY = to_us(datetime(2024, 1, 1, tzinfo=UTC))
FEBRUARY = to_us(datetime(2024, 2, 1, tzinfo=UTC))
MARCH = to_us(datetime(2024, 3, 1, tzinfo=UTC))
NOW = to_us(datetime(2024, 3, 2, 10, 0, 45, tzinfo=UTC))


class Rest:
    """A symbol that has traded from ``first_us`` to ``last_us``."""

    def __init__(self, first_us: int, last_us: int = NOW) -> None:
        self.first_us, self.last_us = first_us, last_us

    def klines(
        self, name: str, interval: str, start: int | None, end: int | None, *, limit: int
    ) -> KlinePage:
        assert (name, interval, limit) == ("X", "1m", 1)
        if start is not None:
            at = max(start, self.first_us)
        else:
            at = min(end - MINUTE_US if end is not None else NOW, self.last_us)
            at -= at % MINUTE_US
        if not self.first_us <= at <= self.last_us:
            return KlinePage([], NOW, 0, None)
        if at + MINUTE_US > NOW - 30_000_000:
            return KlinePage([], NOW, 1, None)
        return KlinePage([silent_candle("X", at, ZERO)], NOW, 0, None)


class Site:
    """A dump site that has published the given months and days."""

    def __init__(self, months: tuple[int, ...] = (), days: tuple[int, ...] = ()) -> None:
        self.paths = sorted(
            [monthly_path("X", from_us(month)) for month in months]
            + [daily_path("X", from_us(day)) for day in days]
        )

    def list(self, prefix: str, *, after: str, until: str) -> list[DumpEntry]:
        return [
            DumpEntry(path, NOW)
            for path in self.paths
            if path.startswith(prefix) and after < path < until
        ]


def days(start: int, end: int) -> tuple[int, ...]:
    return tuple(range(start, end, DAY_US))


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(
        rest: Any, site: Any, missing: list[tuple[int, int]] | None, start: int | None,
        end: int | None, *, verify: bool = False, mode: FillMode = FillMode.ALL,
        in_part: bool = False,
        states: dict[str, FileState] | None = None,
        coverage: list[tuple[int, int]] | None = None,
        stored: tuple[int, int] | None = None,
        listed: tuple[int | None, int | None] = (None, None),
    ) -> BackfillPlan:  # fmt: skip
        known = {
            "missing_minutes": lambda _connection, _symbol, first, last, *, unsure: common(
                [(first, last)] if missing is None else missing, [(first, last)]
            ),
            "file_states": lambda _connection, _symbol, _kind: states or {},
            "read_coverage": lambda *_: coverage or [],
            "stored_span": lambda *_: stored,
            "listed_span": lambda *_: listed,
            "server_time": lambda _: from_us(NOW),
        }
        for name, value in known.items():
            monkeypatch.setattr(planning, name, value)
        planner = _Planner(None, rest, site, fill=mode, verify=verify)  # type: ignore[arg-type]
        return planner.plan("X", start, end, in_part=in_part)

    return make


ALL = Site((JANUARY, FEBRUARY), days(JANUARY, MARCH + DAY_US))


def test_whole_months_come_from_monthly_files_then_days_then_rest(plan: Any) -> None:
    made = plan(Rest(0), ALL, None, JANUARY, None)
    assert [piece.label for piece in made.dumps] == ["X 2024-01", "X 2024-02", "X 2024-03-01"]
    assert [piece.source for piece in made.dumps] == ["dump_monthly"] * 2 + ["dump_daily"]
    assert [piece.label for piece in made.rest] == ["X 2024-03-02 00:00..10:00"]
    assert made.pieces == (*made.dumps, *made.rest)


def test_single_days_of_a_month_come_from_daily_files(plan: Any) -> None:
    start, end = JANUARY + 3 * DAY_US, JANUARY + 6 * DAY_US
    made = plan(Rest(0), ALL, [(start, end)], JANUARY, FEBRUARY)
    assert [piece.label for piece in made.dumps] == ["X 2024-01-04", "X 2024-01-05", "X 2024-01-06"]
    assert made.rest == ()


def test_small_gaps_come_from_rest_and_close_ones_are_joined(plan: Any) -> None:
    gap = JANUARY + 3 * DAY_US
    missing = [
        (gap, gap + 5 * MINUTE_US),
        (gap + 60 * MINUTE_US, gap + 61 * MINUTE_US),
        (gap + 700 * MINUTE_US, gap + 701 * MINUTE_US),
    ]
    made = plan(Rest(0), ALL, missing, JANUARY, FEBRUARY)
    assert made.dumps == ()
    assert [(piece.start_us, piece.end_us) for piece in made.rest] == [
        (gap, gap + 61 * MINUTE_US),
        missing[2],
    ]
    assert made.missing_minutes == 7


def test_unpublished_minutes_come_from_rest_in_bounded_pieces(plan: Any) -> None:
    made = plan(Rest(0), Site(), None, JANUARY, FEBRUARY)
    spans = [(piece.start_us, piece.end_us) for piece in made.rest]
    assert minutes_in(spans) == 31 * 1440
    assert max(end - start for start, end in spans) == REST_PART_MINUTES * MINUTE_US


def test_plan_covers_every_missing_minute_once(plan: Any) -> None:
    partly = Site((JANUARY,), days(FEBRUARY, FEBRUARY + 9 * DAY_US))
    made = plan(Rest(0), partly, None, JANUARY + 7 * MINUTE_US, FEBRUARY + 20 * DAY_US)
    spans = sorted((piece.start_us, piece.end_us) for piece in made.pieces)
    assert spans[0][0] == JANUARY + 7 * MINUTE_US
    assert spans[-1][1] == FEBRUARY + 20 * DAY_US
    assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))


def test_nothing_is_planned_before_the_first_row_or_after_the_last(plan: Any) -> None:
    listed, ended = JANUARY + 30 * DAY_US, FEBRUARY + 3 * DAY_US
    site = Site((FEBRUARY,), days(listed, MARCH))
    made = plan(Rest(listed, ended), site, None, 0, None)
    assert min(piece.start_us for piece in made.pieces) == listed
    assert max(piece.end_us for piece in made.pieces) == ended + MINUTE_US


def test_symbol_without_rows_in_the_range_is_noted(plan: Any) -> None:
    made = plan(Rest(FEBRUARY), Site((FEBRUARY,)), None, JANUARY, FEBRUARY - DAY_US)
    assert made == BackfillPlan(notes=("X: the exchange has no rows in this range",))


def test_unavailable_dump_site_is_noted_and_skipped(plan: Any) -> None:
    class Away:
        def list(self, *_: str, **__: str) -> list[DumpEntry]:
            raise TransientError("no answer from dumps.test")

    made = plan(Rest(0), Away(), [(JANUARY, JANUARY + DAY_US)], JANUARY, FEBRUARY)
    assert (made.dumps, len(made.rest)) == ((), 1)
    assert "no answer from dumps.test" in made.notes[0]


def test_verifying_plans_daily_files_even_if_nothing_is_missing(plan: Any) -> None:
    made = plan(Rest(0), ALL, [], JANUARY, JANUARY + 10 * DAY_US, verify=True)
    assert {piece.source for piece in made.dumps} == {"dump_daily"}
    assert (len(made.dumps), made.rest) == (10, ())


def test_history_starts_with_the_first_row_of_rest_or_an_older_file(
    plan: Any,
) -> None:
    made = plan(Rest(JANUARY + 3 * DAY_US), Site((JANUARY, FEBRUARY)), None, None, MARCH)
    assert made.pieces[0].start_us == JANUARY + 3 * DAY_US
    assert "X: its history begins at 2024-01-04 00:00" in made.notes
    made = plan(Rest(FEBRUARY + DAY_US), Site((JANUARY, FEBRUARY)), None, None, MARCH)
    assert [piece.label for piece in made.dumps] == ["X 2024-01", "X 2024-02"]
    assert "X: its history begins at 2024-01-01 00:00" in made.notes


class Forgotten:
    """A REST without the symbol."""

    def klines(self, *_: object, **__: object) -> KlinePage:
        raise UnknownSymbolError("no symbol 'X'")


def test_symbol_with_only_files_is_loaded_from_them(plan: Any) -> None:
    made = plan(Forgotten(), Site((JANUARY,), (FEBRUARY, FEBRUARY + DAY_US)), None, None, None)
    assert [piece.label for piece in made.pieces] == ["X 2024-01", "X 2024-02-01", "X 2024-02-02"]
    assert "only its dump files are planned, since no symbol 'X'" in made.notes[0]
    assert made.unplanned == ()
    listed = (JANUARY + 9 * DAY_US, FEBRUARY + 90 * MINUTE_US)
    made = plan(Forgotten(), Site((JANUARY,), (FEBRUARY,)), None, None, None, listed=listed)
    assert (made.pieces[0].start_us, made.pieces[-1].end_us) == listed
    with pytest.raises(UnknownSymbolError):
        plan(Forgotten(), Site(), None, None, None)


def test_minutes_in_neither_rest_nor_files_are_noted_and_skipped(plan: Any) -> None:
    (path,) = Site((JANUARY,)).paths
    states = {path: FileState("loaded", NOW, NOW, (JANUARY, FEBRUARY))}
    known = [(JANUARY + 10 * MINUTE_US, FEBRUARY)]
    made = plan(
        Forgotten(), Site((JANUARY,)), [(JANUARY, JANUARY + 10 * MINUTE_US)], None, None,
        states=states, coverage=known,
    )  # fmt: skip
    assert made.pieces == ()
    assert made.notes[-1] == "X: 10 minutes are neither in REST nor in a file"


def test_minutes_missing_in_a_loaded_file_come_from_rest_and_deleted_ones_from_the_file(
    plan: Any,
) -> None:
    site = Site((), (JANUARY,))
    states = {site.paths[0]: FileState("loaded", NOW, NOW, (JANUARY, JANUARY + DAY_US))}
    day = [(JANUARY, JANUARY + DAY_US)]
    made = plan(Rest(0), site, day, JANUARY, FEBRUARY, states=states, coverage=[])
    assert (made.dumps, len(made.rest)) == ((), 1)
    made = plan(Rest(0), site, day, JANUARY, FEBRUARY, states=states, coverage=day)
    assert (len(made.dumps), made.rest) == (1, ())


@pytest.mark.parametrize("verdict", ["wrong_checksum", "corrupt"])
def test_damaged_file_is_planned_again_once_reissued(plan: Any, verdict: str) -> None:
    site = Site((), (JANUARY,))
    made = {
        fetched_us: plan(
            Rest(0), site, None, JANUARY, JANUARY + DAY_US,
            states={site.paths[0]: FileState(verdict, fetched_us, None, None)},
        )
        for fetched_us in (NOW, NOW - DAY_US)
    }  # fmt: skip
    assert made[NOW].dumps == ()
    assert made[NOW].rest[0].why == f"its file cannot be used: {verdict}"
    assert [piece.source for piece in made[NOW - DAY_US].pieces] == ["dump_daily"]


def test_reissued_file_is_planned_even_if_nothing_is_missing(plan: Any) -> None:
    site = Site((), (JANUARY,))
    states = {site.paths[0]: FileState("loaded", NOW, NOW - DAY_US, (JANUARY, FEBRUARY))}
    (piece,) = plan(Rest(0), site, [], JANUARY, FEBRUARY, states=states).pieces
    assert (piece.label, piece.minutes) == ("X 2024-01-01", 0)
    assert piece.why == "re-issued since it was loaded"


@pytest.mark.parametrize("verdict", ["unreachable", "missing", "refused", "wrong_checksum"])
def test_unfetched_reissue_is_planned_until_loaded(plan: Any, verdict: str) -> None:
    site = Site((), (JANUARY,))
    states = {site.paths[0]: FileState(verdict, NOW, NOW - DAY_US, (JANUARY, JANUARY + DAY_US))}
    (piece,) = plan(Rest(0), site, [], JANUARY, FEBRUARY, states=states).pieces
    assert piece.why == "re-issued since it was loaded"


def test_damaged_reissue_is_skipped_until_the_next(plan: Any) -> None:
    site = Site((), (JANUARY,))
    for fetched_us, pieces in ((NOW, 0), (NOW - 60, 1)):
        known = FileState("corrupt", fetched_us, NOW - DAY_US, (JANUARY, JANUARY + DAY_US))
        made = plan(Rest(0), site, [], JANUARY, FEBRUARY, states={site.paths[0]: known})
        assert len(made.pieces) == pieces


def test_modes_are_relative_to_stored_minutes(plan: Any) -> None:
    stored = (JANUARY + 10 * DAY_US, JANUARY + 20 * DAY_US)
    bounds = {
        mode: [
            (piece.start_us, piece.end_us)
            for piece in plan(
                Rest(0), Site(), None, JANUARY, JANUARY + 25 * DAY_US, mode=mode, stored=stored
            ).pieces
        ]
        for mode in FillMode
    }
    assert bounds[FillMode.BACKWARD][0][0] == JANUARY
    assert bounds[FillMode.BACKWARD][-1][1] == bounds[FillMode.GAPS][0][0] == stored[0]
    assert bounds[FillMode.GAPS][-1][1] == bounds[FillMode.FORWARD][0][0] == stored[1]
    assert bounds[FillMode.FORWARD][-1][1] == JANUARY + 25 * DAY_US


def test_relative_mode_without_stored_minutes_is_noted(plan: Any) -> None:
    made = plan(Rest(0), ALL, None, JANUARY, FEBRUARY, mode=FillMode.FORWARD)
    assert made == BackfillPlan(notes=("X: nothing is stored, so mode forward has no place",))


def test_files_are_planned_and_the_symbol_named_while_rest_is_unavailable(plan: Any) -> None:
    class Away:
        def klines(self, *_: object, **__: object) -> KlinePage:
            raise TransientError("no answer")

    made = plan(Away(), Site((JANUARY,)), None, JANUARY, MARCH, in_part=True)
    assert [piece.label for piece in made.pieces] == ["X 2024-01"]
    assert made.unplanned == ("X: only its dump files are planned, since no answer",)
    with pytest.raises(TransientError):
        plan(Away(), Site((JANUARY,)), None, JANUARY, MARCH)


def test_unknown_mode_is_refused_with_the_known_ones() -> None:
    with pytest.raises(PermanentError, match="all, forward, backward, gaps"):
        planning.fill_from("sideways")


def test_period_of_a_file_follows_from_its_name() -> None:
    assert window_of("data/x/X-1m-2024-01.zip") == (JANUARY, FEBRUARY)
    assert window_of("X-1m-2024-01-31.zip") == (FEBRUARY - DAY_US, FEBRUARY)
