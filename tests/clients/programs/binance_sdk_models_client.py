"""The models of Binance's own SDKs, compared with the data they were filled from."""

import asyncio
from typing import Any

from binance_sdk_client import MARKETS, rest, sockets
from program import command, run, until
from pydantic import BaseModel

REST = {
    "spot": {
        "exchange_info": {},
        "depth": {"symbol": "BTCUSDT"},
        "get_trades": {"symbol": "BTCUSDT"},
        "historical_trades": {"symbol": "BTCUSDT"},
        "agg_trades": {"symbol": "BTCUSDT"},
        "avg_price": {"symbol": "BTCUSDT"},
        "ticker24hr": {"symbol": "BTCUSDT"},
        "ticker_price": {"symbol": "BTCUSDT"},
        "ticker_book_ticker": {"symbol": "BTCUSDT"},
        "time": {},
    },
    "um": {
        "exchange_information": {},
        "order_book": {"symbol": "BTCUSDT"},
        "recent_trades_list": {"symbol": "BTCUSDT"},
        "old_trades_lookup": {"symbol": "BTCUSDT"},
        "compressed_aggregate_trades_list": {"symbol": "BTCUSDT"},
        "ticker24hr_price_change_statistics": {"symbol": "BTCUSDT"},
        "symbol_price_ticker": {"symbol": "BTCUSDT"},
        "symbol_order_book_ticker": {"symbol": "BTCUSDT"},
        "mark_price": {"symbol": "BTCUSDT"},
        "check_server_time": {},
    },
}
STREAMS = {
    "spot": {
        "agg_trade": {"symbol": "btcusdt"},
        "trade": {"symbol": "btcusdt"},
        "kline": {"symbol": "btcusdt", "interval": "1m"},
        "mini_ticker": {"symbol": "btcusdt"},
        "all_mini_ticker": {},
        "ticker": {"symbol": "btcusdt"},
        "book_ticker": {"symbol": "btcusdt"},
        "avg_price": {"symbol": "btcusdt"},
        "partial_book_depth": {"symbol": "btcusdt", "levels": 5},
        "diff_book_depth": {"symbol": "btcusdt"},
        "rolling_window_ticker": {"symbol": "btcusdt", "window_size": "1h"},
    },
    "um": {
        "aggregate_trade_streams": {"symbol": "btcusdt"},
        "mark_price_stream": {"symbol": "btcusdt"},
        "mark_price_stream_for_all_market": {},
        "kline_candlestick_streams": {"symbol": "btcusdt", "interval": "1m"},
        "individual_symbol_mini_ticker_stream": {"symbol": "btcusdt"},
        "all_market_mini_tickers_stream": {},
        "individual_symbol_ticker_streams": {"symbol": "btcusdt"},
        "individual_symbol_book_ticker_streams": {"symbol": "btcusdt"},
        "partial_book_depth_streams": {"symbol": "btcusdt", "levels": 5},
        "diff_book_depth_streams": {"symbol": "btcusdt"},
        "all_market_liquidation_order_streams": {},
    },
}


def differences(model: Any, path: str = "") -> dict[str, list[str]]:
    """Fields of a model that the answer left empty, and fields that the model does not have."""
    found: dict[str, list[str]] = {"absent": [], "unknown": []}
    if isinstance(model, list):
        parts = {f"{path}[]": one for one in model[:1]}
    elif not isinstance(model, BaseModel):
        parts = {}
    elif "actual_instance" in type(model).model_fields:
        parts = {path: model.actual_instance}
    else:
        parts = {}
        for name, field in type(model).model_fields.items():
            value, shown = getattr(model, name), f"{path}.{field.alias or name}"
            if name == "additional_properties":
                found["unknown"] += [f"{path}.{key}" for key in value]
            elif value is None:
                found["absent"].append(shown)
            else:
                parts[shown] = value
    for shown, part in parts.items():
        for kind, names in differences(part, shown).items():
            found[kind] += names
    return found


@command
def answers(urls: dict[str, str]) -> Any:
    """Differences of every REST answer, by market and the library's name of the call."""
    return {
        f"{market} {name}": differences(getattr(rest(urls, market), name)(**query).data())
        for market, calls in REST.items()
        for name, query in calls.items()
    }


@command
async def frames(urls: dict[str, str]) -> Any:
    """Differences of a frame of each stream, likewise."""
    found = {}
    for part in await asyncio.gather(*(_frames(urls, market) for market in MARKETS)):
        found |= part
    return found


async def _frames(urls: dict[str, str], market: str) -> Any:
    client = sockets(urls, market)
    if await client.create_connection() is None:
        raise AssertionError(f"no connection to {market}")
    seen: dict[str, Any] = {}
    for name, query in STREAMS[market].items():
        handle = await getattr(client, name)(**query)
        handle.on("message", lambda row, name=name: seen.setdefault(f"{market} {name}", row))
    await until(
        lambda: len(seen) == len(STREAMS[market]),
        f"a frame of each stream of {market}; so far {sorted(seen)}",
    )
    await client.close_connection()
    return {name: differences(row) for name, row in seen.items()}


if __name__ == "__main__":
    run()
