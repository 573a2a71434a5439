"""Requests for times and ids out of range: clients often send nanoseconds instead of µs."""

from collections.abc import Iterator

import httpx
import pytest

from simulator.config import SimulatorConfig
from simulator.server import ExchangeThread

FAR = (1, 99_999_999_999_999, 10**18, 1 << 62)


@pytest.fixture(scope="module")
def exchange() -> Iterator[ExchangeThread]:
    with ExchangeThread(SimulatorConfig()) as exchange:
        yield exchange


@pytest.mark.parametrize("prefix", ["/api/v3", "/fapi/v1"])
@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("klines?interval=1m", ("startTime", "endTime")),
        ("klines?interval=1M", ("startTime", "endTime")),
        ("aggTrades?limit=5", ("startTime", "endTime", "fromId")),
        ("historicalTrades?limit=5", ("fromId",)),
    ],
)
def test_far_times_and_ids_are_answered_like_others(
    exchange: ExchangeThread, prefix: str, path: str, names: tuple[str, ...]
) -> None:
    with httpx.Client(
        base_url=exchange.spot_rest_url, headers={"X-MBX-APIKEY": "any"}, timeout=10
    ) as client:
        for name in names:
            for value in FAR:
                answer = client.get(f"{prefix}/{path}&symbol=BTCUSDT&{name}={value}")
                assert answer.status_code in (200, 400), (name, value, answer.text)
                if answer.status_code == 200 and name == "startTime" and value > 1:
                    assert answer.json() == []
        assert client.get(f"{prefix}/time").status_code == 200
