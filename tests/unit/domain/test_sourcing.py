"""Each available missing minute comes from one source, and nothing else is requested."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from include.domain.candles import Source
from include.domain.ranges import Ranges, common, minutes_in, united, without
from include.domain.sourcing import (
    DAY,
    MIN_MINUTES_FOR_A_DAY,
    MONTH,
    REST_PART_MINUTES,
    FillMode,
    PublishedFile,
    SourcedPart,
    minutes_to_fill,
    obtainable,
    sourced,
)
from include.domain.timeframes import DAY_US, MINUTE_US, from_us, to_us

START = to_us(datetime(2024, 1, 20, tzinfo=UTC))
DAYS = 50
END = START + DAYS * DAY_US
SPAN = (START, END)


def daily(day_us: int, **others: object) -> PublishedFile:
    return PublishedFile(
        f"daily/{from_us(day_us):%Y-%m-%d}", Source.DUMP_DAILY, day_us, day_us + DAY_US, **others
    )


def monthly(month_us: int, **others: object) -> PublishedFile:
    end_us = MONTH.next_open_us(month_us)
    return PublishedFile(
        f"monthly/{from_us(month_us):%Y-%m}", Source.DUMP_MONTHLY, month_us, end_us, **others
    )


moments = st.integers(0, DAYS * 1440).map(lambda n: START + n * MINUTE_US)
spans = st.tuples(moments, moments).map(sorted).filter(lambda pair: pair[0] < pair[1]).map(tuple)
many_ranges = st.lists(spans, max_size=8).map(united)
some_lacks = st.lists(spans, max_size=2).map(lambda some: tuple(united(some)))
faults = st.sampled_from(["", "", "", "corrupt"])


@st.composite
def published(draw: st.DrawFn, *, reissued: bool = False) -> list[PublishedFile]:
    files = []
    for make, opens in (
        (daily, [START + n * DAY_US for n in range(DAYS)]),
        (monthly, [to_us(datetime(2024, month, 1, tzinfo=UTC)) for month in (1, 2, 3)]),
    ):
        for open_us in draw(st.lists(st.sampled_from(opens), unique=True)):
            fault = draw(faults)
            lacks = draw(some_lacks)
            anew = reissued and not fault and draw(st.booleans())
            files.append(make(open_us, fault=fault, lacks=lacks, is_reissued=anew))
    return files


def held(part: SourcedPart, missing: Ranges) -> Ranges:
    return common(missing, [(part.start_us, part.end_us)])


@settings(max_examples=300)
@given(many_ranges, published(), st.one_of(st.just(SPAN), st.none(), spans))
def test_every_missing_minute_has_one_part_and_no_part_is_empty(
    missing: Ranges, files: list[PublishedFile], rest_span: tuple[int, int] | None
) -> None:
    wanted = obtainable(missing, files, rest_span)
    parts = sourced(missing, files, span=SPAN, rest_span=rest_span)
    found = [each for part in parts for each in held(part, wanted)]
    assert united(found) == wanted
    assert minutes_in(found) == minutes_in(wanted)
    for part in parts:
        inside = held(part, wanted)
        # from a missing minute to a missing one: proven minutes are not requested by themselves
        assert (inside[0][0], inside[-1][1]) == (part.start_us, part.end_us)
        assert part.minutes == minutes_in(inside)
        assert part.why


@settings(max_examples=200)
@given(many_ranges, published(reissued=True), spans, st.booleans())
def test_parts_stay_within_the_listing_and_their_files(
    missing: Ranges, files: list[PublishedFile], span: tuple[int, int], verify: bool
) -> None:
    missing = common(missing, [span])
    parts = sourced(missing, files, span=span, rest_span=span, verify=verify)
    assert sum(part.minutes for part in parts) == minutes_in(missing)
    for part in parts:
        if part.file is None or not part.file.is_reissued:
            assert span[0] <= part.start_us < part.end_us <= span[1]
        if part.file is None:
            assert part.source is Source.REST
            assert part.end_us - part.start_us <= REST_PART_MINUTES * MINUTE_US
        else:
            assert part.file.start_us <= part.start_us
            assert part.end_us <= part.file.end_us
            assert part.source is part.file.source
            assert not part.file.fault
    assert max(Counter(part.file for part in parts if part.file).values(), default=1) == 1
    covered = united((part.start_us, part.end_us) for part in parts)
    assert without(missing, covered) == []


@given(published())
def test_nothing_is_planned_if_nothing_is_missing(files: list[PublishedFile]) -> None:
    assert sourced([], files, span=SPAN, rest_span=SPAN) == []


@given(many_ranges, published())
def test_damaged_or_incomplete_file_is_no_source(
    missing: Ranges, files: list[PublishedFile]
) -> None:
    for part in sourced(missing, files, span=SPAN, rest_span=SPAN):
        if part.file is not None:
            has = without(held(part, missing), united(part.file.lacks))
            assert minutes_in(has) >= MIN_MINUTES_FOR_A_DAY


def test_reissued_file_is_read_even_if_nothing_is_missing() -> None:
    anew = daily(START + DAY_US, is_reissued=True)
    (part,) = sourced([], [anew, daily(START)], span=SPAN, rest_span=SPAN)
    assert (part.file, part.minutes, part.why) == (anew, 0, "re-issued since it was loaded")


def test_reissued_file_is_read_completely_for_a_partial_request() -> None:
    anew = monthly(MONTH.open_time_us(START), is_reissued=True)
    span = (anew.start_us + DAY_US, anew.start_us + 2 * DAY_US)
    (part,) = sourced([], [anew], span=span, rest_span=span)
    assert (part.start_us, part.end_us) == (anew.start_us, anew.end_us)


def test_minutes_unknown_to_rest_come_from_their_only_file() -> None:
    gap = (START, START + 5 * MINUTE_US)
    (part,) = sourced([gap], [daily(START)], span=SPAN, rest_span=(START + DAY_US, END))
    assert (part.source, part.minutes) == (Source.DUMP_DAILY, 5)
    january = monthly(MONTH.open_time_us(START))
    (part,) = sourced([gap], [january], span=SPAN, rest_span=None)
    assert (part.source, part.file) == (Source.DUMP_MONTHLY, january)
    assert sourced([gap], [], span=SPAN, rest_span=None) == []


def test_part_states_the_reason_for_its_source() -> None:
    gap, day = [(START, START + 5 * MINUTE_US)], [(START, START + DAY_US)]

    def why(missing: Ranges, *files: PublishedFile) -> str:
        (part,) = sourced(missing, files, span=SPAN, rest_span=SPAN)
        return part.why

    assert why(day, daily(START)) == "1,440 minutes of the day are missing"
    assert why(day) == "no file is published for it"
    assert why(gap, daily(START)) == "a file is dearer for 5 minutes"
    assert why(day, daily(START, fault="corrupt")) == "its file cannot be used: corrupt"
    assert why(gap, daily(START, lacks=tuple(gap))) == "its file lacks it"
    assert DAY.open_time_us(START) == START


@given(spans, st.one_of(st.none(), spans))
def test_forward_backward_and_gaps_are_all(
    span: tuple[int, int], stored: tuple[int, int] | None
) -> None:
    parts = [
        one
        for mode in (FillMode.BACKWARD, FillMode.GAPS, FillMode.FORWARD)
        for one in minutes_to_fill(mode, *span, stored)
    ]
    whole = minutes_to_fill(FillMode.ALL, *span, stored)
    assert whole == [span]
    assert united(parts) == (whole if stored else [])
    assert minutes_in(parts) == minutes_in(whole if stored else [])
