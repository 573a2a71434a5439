"""Rounds over many readers, in whose midst bars change and readers come and go."""

from __future__ import annotations

import asyncio
import random

import pytest

from serving.websocket import broadcaster as module
from tests.unit.serving.http.readers import Reader, listener, listening, until


@pytest.fixture
def long_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """One reader in a turn, with changes added after each."""
    monkeypatch.setattr(module, "READERS_PER_TURN", 1)
    monkeypatch.setattr(module, "POLL_INTERVAL_S", 0.0)


@pytest.mark.usefixtures("long_rounds")
async def test_late_reader_in_a_round_gets_the_state_at_its_turn() -> None:
    async with listening() as (changes, _, broadcaster):
        readers = [Reader() for _ in range(30)]
        for one in readers:
            await broadcaster.add(listener(one), ["A", "B"])

        def go_on() -> None:
            changes.publish("A", 2)
            changes.publish("B", 3)  # which is not part of the round

        readers[0].before_first = go_on
        changes.publish("A", 1)
        await until(lambda: all(one.closes("B") == ["3"] for one in readers))
        assert readers[0].closes() == ["1", "2"]
        assert readers[-1].closes() == ["2"]
        assert all(one.closes() in (["1", "2"], ["2"]) for one in readers)


@pytest.mark.usefixtures("long_rounds")
async def test_change_during_a_round_is_not_lost() -> None:
    async with listening() as (changes, _, broadcaster):
        readers = [Reader() for _ in range(30)]
        for one in readers:
            await broadcaster.add(listener(one), ["A", "B"])

        def another_round() -> None:
            changes.publish("A", 2)
            changes.publish("B", 2)
            readers[0].before_first = lambda: changes.publish("A", 3)

        readers[0].before_first = another_round
        changes.publish("A", 1)
        await until(lambda: all(one.closes()[-1:] == ["3"] for one in readers))
        assert all(one.closes("B") == ["2"] for one in readers)


@pytest.mark.parametrize("seed", range(20))
async def test_all_readers_get_the_last_state_despite_joins_leaves_and_slowness(
    long_rounds: None, seed: int
) -> None:
    dice = random.Random(seed)
    symbols = ["A", "B", "C", "D", "E"]
    async with listening() as (changes, _, broadcaster):
        now = dict.fromkeys(symbols, 0)
        readers = [Reader() for _ in range(25)]
        ones = {reader: listener(reader) for reader in readers}
        left = 1_000

        def move() -> None:
            """Something happens while a reader is served."""
            nonlocal left
            left -= 1
            if left < 0:
                return
            for reader in dice.sample(readers, 3):
                reader.before_first = move
            symbol = dice.choice(symbols)
            now[symbol] += 1
            changes.publish(symbol, now[symbol], minute=now[symbol] // 50)
            slow = dice.choice(readers)
            if slow.is_open:
                slow.is_open = False
            else:
                slow.resume()
            leaving = ones[dice.choice(readers)]
            if len(leaving.symbols) > 1:
                broadcaster.remove(leaving, [dice.choice(sorted(leaving.symbols))])

        for one in ones.values():
            await broadcaster.add(one, dice.sample(symbols, 3))
        while left > 0:
            move()  # also without anything to send
            await broadcaster.add(ones[dice.choice(readers)], [dice.choice(symbols)])
            await asyncio.sleep(dice.choice((0, 0, 0, 0.002)))
        for reader in readers:
            if not reader.is_open:
                reader.resume()
        for reader, one in ones.items():
            for symbol in one.symbols:
                last = str(now[symbol])
                await until(lambda r=reader, s=symbol, x=last: r.newest_close(s) == x)  # type: ignore[misc]
        await until(lambda: not broadcaster._waiting)


async def test_revision_mark_reaches_late_readers(long_rounds: None) -> None:
    async with listening() as (changes, _, broadcaster):
        readers = [Reader() for _ in range(30)]
        for one in readers:
            await broadcaster.add(listener(one), ["A"])
        changes.publish("A", 1, is_revision=True)
        readers[0].before_first = lambda: changes.publish("A", 1, is_closed=True)
        await until(
            lambda: all(
                one.messages[-1:] and one.messages[-1]["data"][-1]["is_closed"] for one in readers
            )
        )
        assert all(
            any(bar["is_revision"] for message in one.messages for bar in message["data"])
            for one in readers
        )


async def test_reader_that_joins_during_a_round_never_goes_back_in_time(
    long_rounds: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [f"X{number}" for number in range(300)]  # more than one look takes
    async with listening() as (changes, _, broadcaster):
        readers = [Reader() for _ in range(30)]
        for one in readers:
            await broadcaster.add(listener(one), ["A", "B"])
        await broadcaster.add(listener(Reader()), others)
        late = Reader()
        adding: list[asyncio.Task[None]] = []

        def much_changes() -> None:
            monkeypatch.setattr(module, "POLL_INTERVAL_S", 1e9)
            changes.publish_all([*others, "A"], 3)

        def another_comes() -> None:
            adding.append(asyncio.create_task(broadcaster.add(listener(late), ["A"])))

        readers[5].before_first = lambda: changes.publish("A", 2)
        readers[15].before_first = much_changes
        readers[25].before_first = another_comes
        changes.publish("B", 1)
        await until(lambda: bool(adding))
        await until(lambda: all(one.closes()[-1:] == ["3"] for one in readers))
        await adding[0]
        assert late.closes()[0] == "3"
        assert set(late.closes()) == {"3"}
