"""Subscriptions and delivery of frames."""

import pytest
from websockets.client import ClientProtocol
from websockets.frames import Frame
from websockets.protocol import State
from websockets.uri import parse_uri

from simulator.streams.hub import FrameHub, encode_text_frame
from simulator.streams.protocol import StreamSession, StreamTarget


class _Listener:
    def __init__(self, *, combined: bool = False, unit_us: int = 1_000, route: str | None = None):
        self.target = StreamTarget(combined, (), route, unit_us)
        self.session = StreamSession(combined)
        self.queued: list[bytes] = []
        self.written: list[bytes] = []

    def queue(self, frames: list[bytes]) -> None:
        self.queued += frames

    def flush(self) -> None:
        self.written += self.queued
        self.queued = []

    async def drained(self) -> None:
        return


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536, 200_000])
def test_encoded_frames_are_decoded_by_a_websocket_client(size: int) -> None:
    client = ClientProtocol(parse_uri("ws://localhost/"), state=State.OPEN, max_size=None)
    client.receive_data(encode_text_frame(b"x" * size))
    (frame,) = client.events_received()
    assert isinstance(frame, Frame)
    assert bytes(frame.data) == b"x" * size


def test_feed_is_opened_by_the_first_listener_and_closed_by_the_last() -> None:
    opened: list[str] = []
    closed: list[str] = []
    hub = FrameHub(on_first=opened.append, on_last=closed.append)
    one, two = _Listener(), _Listener()
    hub.subscribe(one, ["a", "b"])
    hub.subscribe(two, ["a"])
    assert opened == ["a", "b"]
    hub.unsubscribe(one, ["a", "b", "never"])
    assert closed == ["b"]
    hub.unsubscribe(two, ["a"])
    assert closed == ["b", "a"]


def test_each_form_is_rendered_once_for_its_listeners() -> None:
    hub = FrameHub(on_first=lambda _s: None, on_last=lambda _s: None)
    raw, micro, combined, other = (
        _Listener(), _Listener(unit_us=1), _Listener(combined=True), _Listener(),
    )  # fmt: skip
    for listener in (raw, micro, combined, other):
        hub.subscribe(listener, ["a@trade"])
    hub.unsubscribe(other, ["a@trade"])
    units: list[int] = []

    def render(unit_us: int) -> list[str]:
        units.append(unit_us)
        return [f'{{"E":{unit_us}}}', "{}"]

    assert hub.deliver("a@trade", render) == 3
    assert hub.deliver("b@trade", render) == 0
    assert raw.written == []
    hub.flush()
    assert sorted(units) == [1, 1_000, 1_000]
    assert raw.written == [encode_text_frame(b'{"E":1000}'), encode_text_frame(b"{}")]
    assert micro.written[0] == encode_text_frame(b'{"E":1}')
    assert combined.written[0] == encode_text_frame(b'{"stream":"a@trade","data":{"E":1000}}')
    assert other.written == []


def test_path_that_does_not_carry_a_stream_opens_no_feed() -> None:
    opened: list[str] = []
    hub = FrameHub(on_first=opened.append, on_last=lambda _s: None)
    hub.subscribe(_Listener(route="public"), ["a@aggTrade", "a@trade"])
    assert opened == ["a@trade"]


def test_listeners_are_counted_once() -> None:
    hub = FrameHub(on_first=lambda _s: None, on_last=lambda _s: None)
    one = _Listener()
    hub.subscribe(one, ["a", "b"])
    assert hub.listeners() == (one,)
