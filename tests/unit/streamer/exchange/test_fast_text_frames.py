from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.client import ClientProtocol
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from streamer.exchange.fast_text_frames import MAX_FRAME_BYTES, FastTextConnection


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def abort(self) -> None: ...

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None: ...

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Played:
    """A connection whose peer is played byte by byte.

    Attributes:
        opening: the peer's answer to the handshake, not given to the connection yet.
        peer: encodes the frames of the other side.
    """

    def __init__(self) -> None:
        self.transport = Transport()
        self.got: list[bytes] = []
        self.reads = 0
        self.connection = FastTextConnection(
            ClientProtocol(parse_uri("ws://exchange/stream"), max_size=MAX_FRAME_BYTES),
            ping_interval=None,
        )
        self.connection.on_texts = self._on_texts
        self.connection.connection_made(self.transport)
        self.peer = ServerProtocol()
        self.handshake = asyncio.ensure_future(self.connection.handshake())
        self.opening = b""

    def _on_texts(self, texts: list[bytes]) -> None:
        self.reads += 1
        self.got += texts

    async def shake(self) -> None:
        """Let the connection ask, and have the peer agree."""
        await asyncio.sleep(0)
        self.peer.receive_data(self.transport.written)
        (request,) = self.peer.events_received()
        assert isinstance(request, Request)
        self.peer.send_response(self.peer.accept(request))
        self.opening = self.sent()

    def sent(self) -> bytes:
        """What the peer has to send by now."""
        return b"".join(self.peer.data_to_send())

    def answers(self) -> list[Frame]:
        """Frames that the connection wrote after its handshake."""
        asked, _, frames = self.transport.written.partition(b"\r\n\r\n")
        assert asked
        self.peer.receive_data(frames)
        return [event for event in self.peer.events_received() if isinstance(event, Frame)]


@pytest.fixture
async def played() -> Any:
    one = Played()
    await one.shake()
    yield one
    one.connection.connection_lost(None)
    await asyncio.gather(one.handshake, return_exceptions=True)


def split(data: bytes, chance: random.Random) -> Iterator[bytes]:
    """Pieces of all sizes, often of one byte."""
    while data:
        size = chance.choice((1, 2, 3, 5, 100, 1_000, 100_000))
        yield data[:size]
        data = data[size:]


def send_messages(peer: ServerProtocol, chance: random.Random, count: int) -> list[bytes]:
    """Have the peer send messages of all lengths and forms, pings among them."""
    messages = []
    for number in range(count):
        size = chance.choice((0, 1, 125, 126, 127, 300, 65_535, 65_536, 70_000))
        message = (b"%d " % number + b"x" * size)[:size]
        messages.append(message)
        if size > 3 and chance.random() < 0.3:
            peer.send_text(message[:2], fin=False)
            if chance.random() < 0.5:
                peer.send_ping(b"between")
            peer.send_continuation(message[2:], fin=True)
        else:
            peer.send_text(message)
        if chance.random() < 0.2:
            peer.send_ping(b"after")
    return messages


@pytest.mark.parametrize("seed", range(12))
async def test_messages_are_complete_and_in_order_however_bytes_are_split(
    played: Played, seed: int
) -> None:
    chance = random.Random(seed)
    messages = send_messages(played.peer, chance, 30)
    for piece in split(played.opening + played.sent(), chance):
        played.connection.data_received(piece)
    assert played.got == messages


async def test_all_messages_of_one_read_are_handed_over_together(played: Played) -> None:
    played.connection.data_received(played.opening)
    for number in range(1_000):
        played.peer.send_text(b"%d" % number * 50)
    played.connection.data_received(played.sent())
    assert (len(played.got), played.reads) == (1_000, 1)


async def test_frames_right_behind_the_handshake_are_not_lost(played: Played) -> None:
    played.peer.send_text(b"early")
    played.connection.data_received(played.opening + played.sent())
    assert played.got == [b"early"]


async def test_pings_are_answered_between_messages(played: Played) -> None:
    played.peer.send_text(b"before")
    played.peer.send_ping(b"alive?")
    played.peer.send_text(b"behind")
    played.connection.data_received(played.opening + played.sent())
    assert played.got == [b"before", b"behind"]
    assert [(one.opcode, one.data) for one in played.answers()] == [(Opcode.PONG, b"alive?")]


async def test_bytes_after_a_close_are_not_messages(played: Played) -> None:
    played.peer.send_close(CloseCode.POLICY_VIOLATION, "Too many requests")
    late = Frame(Opcode.TEXT, b"late").serialize(mask=False)
    played.connection.data_received(played.opening + played.sent() + late)
    assert played.got == []
    assert played.connection.protocol.close_rcvd is not None
    assert played.connection.protocol.close_rcvd.code == CloseCode.POLICY_VIOLATION


async def test_messages_are_read_until_our_close_is_answered(played: Played) -> None:
    played.connection.data_received(played.opening)
    played.peer.send_text(b"x" * 300)
    frame = played.sent()
    played.connection.data_received(frame[:100])
    played.connection.protocol.send_close(CloseCode.NORMAL_CLOSURE)
    played.connection.data_received(frame[100:])
    played.peer.send_close(CloseCode.NORMAL_CLOSURE)
    played.connection.data_received(played.sent())
    assert played.got == [b"x" * 300]
    assert played.connection.protocol.close_rcvd is not None


def masked() -> bytes:
    return Frame(Opcode.TEXT, b"masked").serialize(mask=True)


def endless() -> bytes:
    return b"\x81\x7f" + (MAX_FRAME_BYTES + 1).to_bytes(8, "big") + b"x" * 1_000


def text_inside_a_message() -> bytes:
    first = Frame(Opcode.TEXT, b"first", fin=False).serialize(mask=False)
    return first + Frame(Opcode.TEXT, b"another").serialize(mask=False)


def reserved_bits() -> bytes:
    return b"\xc1\x05hello"


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (masked, CloseCode.PROTOCOL_ERROR),
        (endless, CloseCode.MESSAGE_TOO_BIG),
        (text_inside_a_message, CloseCode.PROTOCOL_ERROR),
        (reserved_bits, CloseCode.PROTOCOL_ERROR),
    ],
)
async def test_protocol_violation_closes_the_connection(
    played: Played, wrong: Any, code: CloseCode
) -> None:
    good = Frame(Opcode.TEXT, b"good").serialize(mask=False)
    for piece in split(played.opening + good + wrong(), random.Random(1)):
        played.connection.data_received(piece)
    assert played.got == [b"good"]
    assert played.connection.protocol.state is not State.OPEN
    sent = played.connection.protocol.close_sent
    assert sent is not None
    assert sent.code == code


async def test_endless_handshake_is_left_to_the_library(played: Played) -> None:
    answer = b"HTTP/1.1 101 Switching Protocols\r\n" + b"X-Long: " + b"x" * 70_000
    played.connection.data_received(answer)
    assert played.connection.protocol.handshake_exc is not None
