"""A real browser, by the DevTools protocol: Chromium without a window.

https://chromedevtools.github.io/devtools-protocol/ names the calls.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect

PROGRAM = next(
    (
        found
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (found := shutil.which(name))
    ),
    None,
)
FLAGS = (
    "--headless", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-extensions", "--disable-dev-shm-usage", "--remote-debugging-port=0",
    "--window-size=1280,800",
)  # fmt: skip
PATIENCE_S = 90.0


class Page:
    """One tab."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.complaints: list[str] = []
        """Messages of the page's console and the browser's security."""
        self.requested: list[str] = []
        """Requested addresses."""
        self._reading = asyncio.create_task(self._read())

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A call of the protocol."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        async with asyncio.timeout(PATIENCE_S):
            return await answer

    async def open(self, url: str) -> None:
        """Go there."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")
        await self.call("Page.navigate", url=url)
        await self.until(f"location.href.startsWith({url!r}) && document.readyState === 'complete'")

    async def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        answer = await self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def until(self, script: str) -> Any:
        """Wait until an expression in the page is true."""
        async with asyncio.timeout(PATIENCE_S):
            while not (value := await self.run(script)):
                await asyncio.sleep(0.05)
        return value

    async def press(self, key: str) -> None:
        """One key."""
        text: dict[str, Any] = {"text": key} if len(key) == 1 else {}
        if key == "Escape":  # which browsers know by its number alone
            text["windowsVirtualKeyCode"] = 27
        for kind in ("keyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, key=key, **text)

    async def type(self, text: str) -> None:
        """Into the focused element."""
        await self.call("Input.insertText", text=text)

    async def resize(self, width: int, height: int) -> None:
        """Be a screen of that size; narrow ones are telephones."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 640,
        )  # fmt: skip

    async def picture(self) -> bytes:
        """A screenshot, in PNG."""
        answer = await self.call("Page.captureScreenshot", format="png")
        return base64.b64decode(answer["data"])

    async def close(self) -> None:
        """Close it."""
        self._reading.cancel()
        await asyncio.wait([self._reading])

    async def _read(self) -> None:
        async for text in self._socket:
            message = json.loads(text)
            parameters = message.get("params", {})
            if "id" in message:
                answer = self._answers.pop(message["id"])
                if "error" in message:
                    answer.set_exception(RuntimeError(str(message["error"])))
                elif not answer.cancelled():
                    answer.set_result(message["result"])
            elif message["method"] == "Runtime.exceptionThrown":
                self.complaints.append(str(parameters["exceptionDetails"]))
            elif message["method"] == "Runtime.consoleAPICalled":
                said = [str(one.get("value", one)) for one in parameters["args"]]
                self.complaints.append(f"{parameters['type']}: {' '.join(said)}")
            elif message["method"] == "Log.entryAdded":
                entry = parameters["entry"]
                self.complaints.append(f"{entry['text']} ({entry.get('url', '')})")
            elif message["method"] == "Network.requestWillBeSent":
                self.requested.append(str(parameters["request"]["url"]))


@asynccontextmanager
async def browsing() -> AsyncIterator[Page]:
    """A browser with an empty tab; ended with all that it started."""
    assert PROGRAM is not None
    flags = [*FLAGS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with tempfile.TemporaryDirectory(
        prefix="candelabra-browser-", ignore_cleanup_errors=True
    ) as folder:
        process = await asyncio.create_subprocess_exec(
            PROGRAM, *flags, f"--user-data-dir={folder}", "about:blank",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            port = await _port(Path(folder) / "DevToolsActivePort")
            async with httpx.AsyncClient() as client:
                tabs = (await client.get(f"http://127.0.0.1:{port}/json/list")).json()
            url = next(one["webSocketDebuggerUrl"] for one in tabs if one["type"] == "page")
            async with connect(url, max_size=64 << 20) as socket:
                page = Page(socket)
                try:
                    yield page
                finally:
                    await page.close()
        finally:
            os.killpg(process.pid, 15)
            try:
                async with asyncio.timeout(10):
                    await process.wait()
            except TimeoutError:
                os.killpg(process.pid, 9)
                await process.wait()


async def _port(file: Path) -> int:
    async with asyncio.timeout(PATIENCE_S):
        while not (text := _text(file)):
            await asyncio.sleep(0.05)
    return int(text.splitlines()[0])


def _text(file: Path) -> str:
    return file.read_text().strip() if file.exists() else ""
