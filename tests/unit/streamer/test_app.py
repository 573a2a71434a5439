"""What the streamer does of its own between its parts; nothing of it runs here."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from include.config import load_settings
from include.domain.instruments import Instrument, Market
from include.domain.timeframes import MINUTE_US, SECOND_US
from streamer.app import Streamer
from streamer.roster import Changes
from streamer.startup import StreamOptions
from tests.unit.streamer.played_connection import T0, trade


async def test_a_minute_over_and_not_settled_is_asked_for_where_its_symbol_is_dropped(
    tmp_path: Path,
) -> None:
    settings = load_settings(database_url="postgresql://here/candles", candelabra_home=tmp_path)
    streamer = Streamer(settings, StreamOptions(("BTCUSDT", "ETHUSDT")))
    tick = Decimal("0.01")
    streamer._add(
        Market.SPOT,
        [
            Instrument(f"{base}USDT", Market.SPOT, base, "USDT", "TRADING", tick, tick)
            for base in ("BTC", "ETH")
        ],
        {"BTCUSDT": T0, "ETHUSDT": T0},
    )
    [feed] = streamer._feeds
    feed.on_texts([trade("ETHUSDT", 1, T0 + SECOND_US)])
    feed.on_texts([trade("BTCUSDT", 1, T0 + MINUTE_US + SECOND_US // 10)])
    assert streamer._repairs.waiting_minutes == 0
    streamer._change(Market.SPOT, Changes(dropped=["ETHUSDT"]), {})
    [gap] = streamer._ledger._gaps["ETHUSDT"]
    assert (gap.symbol, gap.start_us, gap.end_us) == ("ETHUSDT", T0, T0 + MINUTE_US)
    assert streamer._repairs.waiting_minutes == 1
    streamer._change(Market.SPOT, Changes(dropped=["BTCUSDT"]), {})
    assert streamer._repairs.waiting_minutes == 2
    assert streamer._exchange_us() >= T0 + MINUTE_US  # else nothing would ever be due
