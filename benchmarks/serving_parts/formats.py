"""Prices in binary against JSON: size and decoding time.

One message has fifty prices. JSON is decoded by the standard library, by msgspec without and with a
type, and by JavaScript's ``JSON.parse``. The binary form is decoded by the reference decoders of
both languages, and by ``numpy.frombuffer``, which a program that needs arrays would use.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import msgspec
import numpy as np

from include.domain.candles import silent_candle
from serving.bars.subscription import BarUpdate
from serving.websocket.messages import (
    MAX_ITEMS,
    binary_message,
    from_binary,
    id_of,
    price_of,
    values_of,
)

ROUNDS = 7
CALLS = 2_000
MINUTE_US = 1_763_716_800_000_000
ITEM = np.dtype([("id", "<u2"), ("price", "<f8"), ("volume", "<f8")])
"""Layout of one item in the binary format."""
DECODER = Path(__file__).parents[2] / "serving" / "page" / "decoder.js"

SCRIPT = """
import { readFileSync } from "node:fs";
const { decodePrices } = await import(process.argv[2]);
const text = readFileSync(process.argv[3], "utf8");
const bytes = readFileSync(process.argv[4]);
const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
const [calls, rounds] = [Number(process.argv[5]), Number(process.argv[6])];
function best(work) {
  let least = Infinity;
  for (let round = 0; round < rounds; round++) {
    const began = process.hrtime.bigint();
    for (let call = 0; call < calls; call++) work();
    least = Math.min(least, Number(process.hrtime.bigint() - began) / 1e3 / calls);
  }
  return least;
}
const parse = best(() => JSON.parse(text));
console.log(JSON.stringify({ parse, binary: best(() => decodePrices(buffer)) }));
"""


class Price(msgspec.Struct):
    """One price in the JSON form."""

    symbol: str
    price: str
    volume: str
    minute: int


class Prices(msgspec.Struct):
    """A message of the JSON form."""

    type: str
    data: list[Price]


def messages() -> tuple[bytes, bytes]:
    """Return the same fifty prices as JSON and in binary."""
    updates = [
        BarUpdate("1m", silent_candle(f"SYM{n}USDT", MINUTE_US, Decimal(6_000_000 + n).scaleb(-2)))
        for n in range(MAX_ITEMS)
    ]
    text = b'{"type":"price","data":[' + b",".join(map(price_of, updates)) + b"]}"
    return text, binary_message([id_of(n) + values_of(one) for n, one in enumerate(updates)])


def best_us(work: Callable[[], object]) -> float:
    """Return the best of some rounds, in µs a call."""
    least = float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(CALLS):
            work()
        least = min(least, time.perf_counter() - began)
    return least / CALLS * 1e6


def run() -> None:
    """Print sizes and times."""
    text, binary = messages()
    untyped, typed = msgspec.json.Decoder(), msgspec.json.Decoder(Prices)
    times = {
        "json.loads": best_us(lambda: json.loads(text)),
        "msgspec": best_us(lambda: untyped.decode(text)),
        "msgspec typed": best_us(lambda: typed.decode(text)),
        "binary": best_us(lambda: from_binary(binary)),
        "binary by numpy": best_us(lambda: np.frombuffer(binary, ITEM, offset=6)),
    } | _javascript(text, binary)
    print(
        f"serving: {MAX_ITEMS} prices: JSON {len(text):,} bytes, binary {len(binary):,} "
        f"({len(text) / len(binary):.1f} times less); decoded in "
        + ", ".join(f"{name} {us:.1f} µs" for name, us in times.items())
    )


def _javascript(text: bytes, binary: bytes) -> dict[str, float]:
    """Print the same for Node.js, if it is installed."""
    node = shutil.which("node")
    if node is None:
        print("serving: no Node.js here, so nothing of JavaScript")
        return {}
    with tempfile.TemporaryDirectory(prefix="candelabra-bench-") as folder:
        files = {"script.mjs": SCRIPT.encode(), "decoder.mjs": DECODER.read_bytes()}
        files |= {"text.json": text, "binary": binary}
        paths = {name: Path(folder) / name for name in files}
        for name, content in files.items():
            paths[name].write_bytes(content)
        told = subprocess.run(
            [
                node, str(paths["script.mjs"]), paths["decoder.mjs"].as_uri(),
                str(paths["text.json"]), str(paths["binary"]), str(CALLS), str(ROUNDS),
            ],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
    found = json.loads(told.stdout)
    return {"JSON.parse": found["parse"], "binary in JavaScript": found["binary"]}
