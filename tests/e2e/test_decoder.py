"""The two reference decoders of binary prices on the same bytes: Python's and JavaScript's.

JavaScript is run by node where there is one, else by the browser.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import shutil
import struct
import zlib
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from include.domain.candles import silent_candle
from serving.bars.subscription import BarUpdate
from serving.http.routes.page import FOLDER
from serving.websocket.messages import MAX_ITEMS, binary_message, from_binary, id_of, values_of
from tests.e2e.browser import PROGRAM, browsing

DECODER = FOLDER / "decoder.js"
NODE = shutil.which("node") or shutil.which("nodejs")
NUMBERS = ("0", "1E-8", "0.1", "12.50", "61234.56", "99999999999999.99", "1E+23", "4.9E-324")
REFUSED = "refused"


def messages_and_damaged_ones() -> list[bytes]:
    """Messages of all lengths, as the server makes them; and the same, damaged."""
    chance = random.Random(7)
    ids = {f"S{number}": number for number in range(MAX_ITEMS - 1)} | {"LAST": 65_535}
    messages = []
    for count in (0, 1, 2, 17, MAX_ITEMS):
        updates = [
            BarUpdate(
                "1m",
                replace(
                    silent_candle(name, 0, Decimal(chance.choice(NUMBERS))),
                    volume=Decimal(chance.choice(NUMBERS)),
                ),
            )
            for name in list(ids)[MAX_ITEMS - count :]
        ]
        messages.append(
            binary_message([id_of(ids[one.candle.symbol]) + values_of(one) for one in updates])
        )
    whole = messages[2]
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << chance.randrange(8)
        messages.append(bytes(damaged))
    messages += [whole[:length] for length in range(len(whole))]
    items = whole[6:]
    for count in (1, 3):  # the checksum fits, the count does not
        rest = struct.pack("<H", count) + items
        messages.append(struct.pack("<I", zlib.crc32(rest)) + rest)
    return messages


def by_python(message: bytes) -> list[list[float]] | str:
    try:
        return [list(item) for item in from_binary(message)]
    except ValueError:
        return REFUSED


def script(messages: list[bytes]) -> str:
    """A JavaScript expression: the decoder's result as JSON."""
    module = "data:text/javascript;base64," + base64.b64encode(DECODER.read_bytes()).decode()
    told = json.dumps([base64.b64encode(one).decode() for one in messages])
    return f"""import({module!r}).then(({{decodePrices}}) => JSON.stringify({told}.map((text) => {{
      const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
      try {{ return decodePrices(bytes.buffer); }}
      catch (error) {{ if (error instanceof RangeError) return {REFUSED!r}; throw error; }}
    }})))"""


async def by_node(messages: list[bytes], folder: Path) -> Any:
    assert NODE is not None
    file = folder / "decode.mjs"
    file.write_text(f"process.stdout.write(await {script(messages)});\n")
    process = await asyncio.create_subprocess_exec(
        NODE, str(file), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        told, error = await process.communicate()
    assert process.returncode == 0, error.decode()
    return json.loads(told)


async def by_browser(messages: list[bytes], _: Path) -> Any:
    async with browsing() as page:
        return json.loads(await page.run(script(messages)))


@pytest.mark.parametrize(
    "engine",
    [
        pytest.param(by_node, marks=pytest.mark.skipif(NODE is None, reason="no node")),
        pytest.param(
            by_browser,
            marks=pytest.mark.skipif(
                PROGRAM is None or NODE is not None,
                reason="node does it; or no Chromium: apt-get install chromium",
            ),
        ),
    ],
)
async def test_both_decoders_agree(engine: Any, tmp_path: Path) -> None:
    messages = messages_and_damaged_ones()
    expected = [by_python(one) for one in messages]
    assert sum(one != REFUSED for one in expected) == 5
    assert sum(one == REFUSED for one in expected) > 80
    assert await engine(messages, tmp_path) == expected
