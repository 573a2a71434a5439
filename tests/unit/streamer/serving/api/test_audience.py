"""Many readers, each at its own pace."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
from websockets.protocol import CLIENT, Protocol

from include.domain.candles import silent_candle
from include.domain.timeframes import MINUTE_US, timeframe
from streamer.serving.api import audience as module
from streamer.serving.api.audience import Audience
from streamer.serving.api.listeners import CANDLES, PRICES, Form, Listener
from streamer.serving.board import Board
from streamer.subscription import Batch, CandleUpdate, Ranges

T0 = 1_700_000_040_000_000


class Changes:
    """Changes that a test makes; None ends them."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Batch | None] = asyncio.Queue()

    async def next(self) -> Batch | None:
        return await self.queue.get()

    def leave(self) -> None:
        pass

    def tell(self, symbol: str, close: int, **how: Any) -> None:
        self.tell_all([symbol], close, **how)

    def tell_all(
        self,
        symbols: list[str],
        close: int,
        *,
        minute: int = 0,
        missed: Ranges | None = None,
        is_closed: bool = False,
        is_revision: bool = False,
    ) -> None:
        candles = [silent_candle(one, T0 + minute * MINUTE_US, Decimal(close)) for one in symbols]
        updates = [
            CandleUpdate(one, is_closed=is_closed, is_revision=is_revision) for one in candles
        ]
        self.queue.put_nowait(Batch(updates, missed or {}))


class Reader:
    """Takes frames while it likes to."""

    def __init__(self) -> None:
        self.is_open = True
        self.before_first: Callable[[], None] | None = None
        """Called once, as it is told something."""
        self.messages: list[dict[str, Any]] = []
        self._library = Protocol(CLIENT)
        self._calls: list[Callable[[], None]] = []

    def takes(self) -> bool:
        return self.is_open

    def push(self, frames: bytes) -> None:
        assert self.is_open
        call, self.before_first = self.before_first, None
        if call is not None:
            call()
        self._library.receive_data(frames)
        for frame in self._library.events_received():
            self.messages.append(json.loads(frame.data))  # type: ignore[union-attr]

    def when_it_takes(self, call: Callable[[], None]) -> None:
        self._calls.append(call)

    def goes_on(self) -> None:
        self.is_open = True
        calls, self._calls = self._calls, []
        for call in calls:
            call()

    def closes(self, symbol: str = "A") -> list[str]:
        return [
            one.get("close") or one["price"]
            for message in self.messages
            if "data" in message and message["type"] != "missed"
            for one in message["data"]
            if one["symbol"] == symbol
        ]


@asynccontextmanager
async def listening(form: Form = CANDLES) -> AsyncIterator[tuple[Changes, Board, Audience]]:
    changes = Changes()
    board = Board(lambda: changes, lambda _symbol, _newest: ((), (), ()))
    task = asyncio.create_task(board.run())
    try:
        yield changes, board, Audience(board, timeframe("1m"), form)
    finally:
        task.cancel()
        await asyncio.wait([task])


def listener(to: Reader, **options: Any) -> Listener:
    nothing = {"on_gone": lambda: None, "on_end": lambda: None, "patience_s": 30.0}
    return Listener(to, **(nothing | options))


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.001)


async def test_each_is_told_of_its_symbols_and_a_change_is_encoded_once() -> None:
    encoded: list[str] = []

    def encode(update: Any) -> bytes:
        encoded.append(update.candle.symbol)
        return CANDLES.encode(update)

    async with listening(Form(encode, CANDLES.join)) as (changes, _, audience):
        readers = [Reader() for _ in range(5)]
        for one in readers:
            await audience.add(listener(one), ["A"])
        other = Reader()
        await audience.add(listener(other), ["B"])
        changes.tell("A", 1)
        await until(lambda: all(one.closes() == ["1"] for one in readers))
        changes.tell("B", 2)
        await until(lambda: other.closes("B") == ["2"])
        assert encoded == ["A", "B"]
        assert not other.closes("A")


async def test_who_comes_later_begins_with_the_present_state() -> None:
    async with listening() as (changes, _, audience):
        first, second = Reader(), Reader()
        await audience.add(listener(first), ["A"])
        changes.tell("A", 1)
        await until(lambda: first.closes() == ["1"])
        await audience.add(listener(second), ["A"])
        assert second.closes() == ["1"]
        assert first.closes() == ["1"]  # who knows it is not told again
        changes.tell("A", 2)
        await until(lambda: first.closes() == second.closes() == ["1", "2"])


async def test_one_that_does_not_take_gets_the_newest_when_it_does() -> None:
    async with listening() as (changes, _, audience):
        slow, quick = Reader(), Reader()
        await audience.add(listener(slow), ["A"])
        await audience.add(listener(quick), ["A"])
        slow.is_open = False
        for close in range(1, 50):
            changes.tell("A", close)
            await until(lambda close=close: quick.closes()[-1:] == [str(close)])  # type: ignore[misc]
        slow.goes_on()
        assert slow.closes() == ["49"]
        changes.tell("A", 50)
        await until(lambda: slow.closes() == ["49", "50"])


@pytest.fixture
def long_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """One reader a turn, and a look at the board after each."""
    monkeypatch.setattr(module, "READERS_A_TURN", 1)
    monkeypatch.setattr(module, "LOOK_S", 0.0)


@pytest.mark.usefixtures("long_rounds")
async def test_who_comes_late_in_a_round_is_told_what_is_so_by_then() -> None:
    async with listening() as (changes, _, audience):
        readers = [Reader() for _ in range(30)]
        for one in readers:
            await audience.add(listener(one), ["A", "B"])

        def go_on() -> None:
            changes.tell("A", 2)
            changes.tell("B", 3)  # of which the round does not tell

        readers[0].before_first = go_on
        changes.tell("A", 1)
        await until(lambda: all(one.closes("B") == ["3"] for one in readers))
        assert readers[0].closes() == ["1", "2"]
        assert readers[-1].closes() == ["2"]
        assert all(one.closes() in (["1", "2"], ["2"]) for one in readers)


@pytest.mark.usefixtures("long_rounds")
async def test_what_a_reader_knew_when_a_round_began_and_changes_in_it_is_not_lost() -> None:
    async with listening() as (changes, _, audience):
        readers = [Reader() for _ in range(30)]
        for one in readers:
            await audience.add(listener(one), ["A", "B"])

        def another_round() -> None:
            changes.tell("A", 2)
            changes.tell("B", 2)
            readers[0].before_first = lambda: changes.tell("A", 3)

        readers[0].before_first = another_round
        changes.tell("A", 1)
        await until(lambda: all(one.closes()[-1:] == ["3"] for one in readers))
        assert all(one.closes("B") == ["2"] for one in readers)


@pytest.mark.parametrize("seed", range(20))
async def test_all_are_told_the_last_state_whoever_comes_goes_or_dawdles(
    long_rounds: None, seed: int
) -> None:
    dice = random.Random(seed)
    symbols = ["A", "B", "C", "D", "E"]
    async with listening() as (changes, _, audience):
        now = dict.fromkeys(symbols, 0)
        readers = [Reader() for _ in range(25)]
        ones = {reader: listener(reader) for reader in readers}
        left = 1_000

        def move() -> None:
            """Something happens as somebody is told."""
            nonlocal left
            left -= 1
            if left < 0:
                return
            for reader in dice.sample(readers, 3):
                reader.before_first = move
            symbol = dice.choice(symbols)
            now[symbol] += 1
            changes.tell(symbol, now[symbol], minute=now[symbol] // 50)
            slow = dice.choice(readers)
            if slow.is_open:
                slow.is_open = False
            else:
                slow.goes_on()
            leaving = ones[dice.choice(readers)]
            if len(leaving.symbols) > 1:
                audience.remove(leaving, [dice.choice(sorted(leaving.symbols))])

        for one in ones.values():
            await audience.add(one, dice.sample(symbols, 3))
        while left > 0:
            move()  # also where nobody is told anything
            await audience.add(ones[dice.choice(readers)], [dice.choice(symbols)])
            await asyncio.sleep(dice.choice((0, 0, 0, 0.002)))
        for reader in readers:
            if not reader.is_open:
                reader.goes_on()
        for reader, one in ones.items():
            for symbol in one.symbols:
                last = str(now[symbol])
                await until(lambda r=reader, s=symbol, x=last: r.closes(s)[-1:] == [x])  # type: ignore[misc]
        assert not audience._waiting


async def test_that_a_bar_was_revised_is_told_also_to_who_comes_late(long_rounds: None) -> None:
    async with listening() as (changes, _, audience):
        readers = [Reader() for _ in range(30)]
        for one in readers:
            await audience.add(listener(one), ["A"])
        changes.tell("A", 1, is_revision=True)
        readers[0].before_first = lambda: changes.tell("A", 1, is_closed=True)
        await until(
            lambda: all(
                one.messages[-1:] and one.messages[-1]["data"][-1]["is_closed"] for one in readers
            )
        )
        assert all(
            any(bar["is_revision"] for message in one.messages for bar in message["data"])
            for one in readers
        )


async def test_who_comes_in_the_midst_of_a_round_never_goes_back_in_time(
    long_rounds: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [f"X{number}" for number in range(300)]  # more than one look takes
    async with listening() as (changes, _, audience):
        readers = [Reader() for _ in range(30)]
        for one in readers:
            await audience.add(listener(one), ["A", "B"])
        await audience.add(listener(Reader()), others)
        late = Reader()
        adding: list[asyncio.Task[None]] = []

        def much_changes() -> None:
            monkeypatch.setattr(module, "LOOK_S", 1e9)
            changes.tell_all([*others, "A"], 3)

        def another_comes() -> None:
            adding.append(asyncio.create_task(audience.add(listener(late), ["A"])))

        readers[5].before_first = lambda: changes.tell("A", 2)
        readers[15].before_first = much_changes
        readers[25].before_first = another_comes
        changes.tell("B", 1)
        await until(lambda: bool(adding))
        await until(lambda: all(one.closes()[-1:] == ["3"] for one in readers))
        await adding[0]
        assert late.closes()[0] == "3"
        assert set(late.closes()) == {"3"}


async def test_one_that_takes_nothing_for_long_is_given_up(monkeypatch: Any) -> None:
    gone = asyncio.Event()
    async with listening() as (changes, _, audience):
        reader = Reader()
        one = listener(reader, on_gone=gone.set, patience_s=0.01)
        await audience.add(one, ["A"])
        reader.is_open = False
        changes.tell("A", 1)
        async with asyncio.timeout(10):
            await gone.wait()


async def test_what_waits_is_bounded_and_what_had_to_leave_is_named(monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "LEAST_IN_HAND", 10)
    monkeypatch.setattr(module, "BARS_IN_HAND", 10)
    async with listening() as (changes, _, audience):
        slow, quick = Reader(), Reader()
        one = listener(slow)
        await audience.add(one, ["A"])
        await audience.add(listener(quick), ["A"])
        slow.is_open = False
        for minute in range(40):
            changes.tell("A", minute, minute=minute)
        await until(lambda: quick.closes()[-1:] == ["39"])
        assert len(one.waiting) <= 10
        slow.goes_on()
        assert slow.closes() == [str(close) for close in range(30, 40)]
        assert slow.messages[-1] == {
            "type": "missed",
            "data": [
                {
                    "symbol": "A",
                    "timeframe": "1m",
                    "from": T0 // 1_000,
                    "to": (T0 + 30 * MINUTE_US) // 1_000,
                }
            ],
        }


async def test_minutes_that_were_lost_before_are_named_to_those_who_listen() -> None:
    async with listening() as (changes, _, audience):
        reader, other = Reader(), Reader()
        await audience.add(listener(reader), ["A"])
        await audience.add(listener(other), ["B"])
        changes.tell("A", 1, missed={"A": (T0 - MINUTE_US, T0)})
        await until(lambda: [one["type"] for one in reader.messages] == ["candles", "missed"])
        assert not other.messages


async def test_prices_never_go_back_to_an_older_minute() -> None:
    async with listening(PRICES) as (changes, _, audience):
        reader = Reader()
        await audience.add(listener(reader), ["A"])
        changes.tell("A", 5, minute=1)
        changes.tell("A", 4, minute=0)
        await until(lambda: reader.closes() == ["5"])
        changes.tell("A", 6, minute=1)
        await until(lambda: reader.closes() == ["5", "6"])


async def test_who_leaves_is_told_nothing_more_and_without_anybody_nothing_is_watched() -> None:
    async with listening() as (changes, board, audience):
        leaving, staying = Reader(), Reader()
        one, two = listener(leaving), listener(staying)
        await audience.add(one, ["A", "B"])
        await audience.add(two, ["A"])
        audience.remove(one, ["A"])
        changes.tell("A", 1)
        changes.tell("B", 2)
        await until(lambda: leaving.closes("B") == ["2"] and staying.closes() == ["1"])
        assert not leaving.closes("A")
        assert board.watches == 1
        audience.remove(one, ["B"])
        audience.remove(two, ["A"])
        assert board.watches == 0
        await audience.add(two, ["A"])  # and again
        changes.tell("A", 3)
        await until(lambda: staying.closes()[-1:] == ["3"])


async def test_all_are_told_when_nothing_will_change_any_more() -> None:
    ended: list[int] = []
    async with listening() as (changes, _, audience):
        for number in range(3):
            one = listener(Reader(), on_end=lambda number=number: ended.append(number))
            await audience.add(one, ["A", "B"])
        changes.queue.put_nowait(None)
        await until(lambda: len(ended) == 3)
    assert sorted(ended) == [0, 1, 2]


async def test_a_reader_that_was_too_slow_is_told_for_how_many_states(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "CONFLATED_TOLD_S", 1e9)
    async with listening() as (changes, _, audience):
        slow, quick = Reader(), Reader()
        for reader in (slow, quick):
            await audience.add(listener(reader), ["A"])
        slow.is_open = False
        for close in range(1, 6):
            changes.tell("A", close)
            await until(lambda close=close: quick.closes()[-1:] == [str(close)])  # type: ignore[misc]
        assert audience.conflated == 4
        slow.goes_on()
        assert slow.closes() == ["5"]
        assert slow.messages[-1] == {"type": "conflated", "count": 4}
        slow.is_open = False
        for close in range(6, 9):
            changes.tell("A", close)
            await until(lambda close=close: quick.closes()[-1:] == [str(close)])  # type: ignore[misc]
        slow.goes_on()  # too soon to be told again
        assert slow.closes() == ["5", "8"]
        assert slow.messages[-1]["type"] == "candles"
        slow.is_open = False
        changes.tell("A", 9)
        await until(lambda: quick.closes()[-1:] == ["9"])
        monkeypatch.setattr(module, "CONFLATED_TOLD_S", 0.0)
        slow.goes_on()
        assert slow.messages[-1] == {"type": "conflated", "count": 2}
        assert {one["type"] for one in quick.messages} == {"candles"}
