"""TLS with real clients that address the exchange by its own names."""

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import websockets

from simulator.config import SimulatorConfig
from simulator.server import Exchange


async def _read(exchange: Exchange, trusted: ssl.SSLContext) -> tuple[Any, Any]:
    """Read REST as api.binance.com, and a stream as stream.binance.com."""
    async with httpx.AsyncClient(verify=trusted, timeout=30) as client:
        answer = await client.get(
            f"{exchange.spot_rest_url}/api/v3/time",
            headers={"host": "api.binance.com"},
            extensions={"sni_hostname": "api.binance.com"},
        )
    where = urlsplit(exchange.spot_ws_url)
    async with (
        asyncio.timeout(30),
        websockets.connect(
            "wss://stream.binance.com:9443/ws/btcusdt@bookTicker",
            host=where.hostname,
            port=where.port,
            ssl=trusted,
        ) as socket,
    ):
        frame = json.loads(await socket.recv())
    return answer.json(), frame


async def test_generated_certificate_is_trusted_by_its_authority(tmp_path: Path) -> None:
    async with Exchange(SimulatorConfig(tls=tmp_path, speed=20)) as exchange:
        assert {urlsplit(url).scheme for url in (exchange.spot_ws_url, exchange.um_ws_url)} == {
            "wss"
        }
        assert urlsplit(exchange.dump_url).scheme == "https"
        assert exchange.tls_ca_file == str(tmp_path / "simulator-ca.pem")
        trusted = ssl.create_default_context(cafile=exchange.tls_ca_file)
        trusted.verify_flags |= ssl.VERIFY_X509_STRICT  # the default since Python 3.13
        time, frame = await _read(exchange, trusted)
        assert time["serverTime"] > 0
        assert frame["s"] == "BTCUSDT"
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await _read(exchange, ssl.create_default_context())


async def test_own_certificate_is_served(tmp_path: Path) -> None:
    async with Exchange(SimulatorConfig(tls=tmp_path)):
        pass
    own = SimulatorConfig(
        tls_cert=tmp_path / "simulator.pem", tls_key=tmp_path / "simulator-key.pem", speed=20
    )
    async with Exchange(own) as exchange:
        assert exchange.tls_ca_file is None
        trusted = ssl.create_default_context(cafile=tmp_path / "simulator-ca.pem")
        time, frame = await _read(exchange, trusted)
        assert (time["serverTime"] > 0, frame["s"]) == (True, "BTCUSDT")
        assert exchange.stream_servers["spot"].cut() >= 0


async def test_reset_ends_an_encrypted_stream(tmp_path: Path) -> None:
    async with Exchange(SimulatorConfig(tls=tmp_path, speed=20)) as exchange:
        trusted = ssl.create_default_context(cafile=exchange.tls_ca_file)
        url = f"{exchange.spot_ws_url}/ws/btcusdt@bookTicker"
        async with asyncio.timeout(30), websockets.connect(url, ssl=trusted) as socket:
            await socket.recv()
            assert exchange.stream_servers["spot"].cut() == 1
            with pytest.raises(websockets.ConnectionClosedError, match="no close frame"):
                await _read_to_the_end(socket)


async def _read_to_the_end(socket: websockets.ClientConnection) -> None:
    while True:
        await socket.recv()
