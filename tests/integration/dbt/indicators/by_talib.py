"""Compute indicators with TA-Lib; runs in ``.venv-clients``.

Reads {name: {close, high, low}} as JSON from standard input and writes {name: {column: values}},
null if TA-Lib has no value.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import talib


def indicators(series: dict[str, list[float]]) -> dict[str, np.ndarray]:
    """Columns of ``marts.indicators`` that TA-Lib has, and ``bollinger_middle``."""
    close, high, low = (np.array(series[name], dtype=float) for name in ("close", "high", "low"))
    macd, signal, histogram = talib.MACD(close, 12, 26, 9)
    upper, middle, lower = talib.BBANDS(close, timeperiod=20, nbdevup=2, nbdevdn=2)
    return {
        "sma_20": talib.SMA(close, 20),
        "sma_50": talib.SMA(close, 50),
        "sma_200": talib.SMA(close, 200),
        "ema_20": talib.EMA(close, 20),
        "ema_50": talib.EMA(close, 50),
        "rsi_14": talib.RSI(close, 14),
        "macd": macd,
        "macd_signal": signal,
        "macd_histogram": histogram,
        "atr_14": talib.ATR(high, low, close, 14),
        "bollinger_upper": upper,
        "bollinger_middle": middle,
        "bollinger_lower": lower,
        "simple_return": talib.ROCP(close, 1),
    }


def on_balance(series: dict[str, list[float]]) -> np.ndarray:
    """OBV of each session."""
    sessions = np.array(series["session"])
    close, volume = (np.array(series[name], dtype=float) for name in ("close", "volume"))
    return np.concatenate(
        [talib.OBV(close[sessions == day], volume[sessions == day]) for day in np.unique(sessions)]
    )


answers = {
    name: {
        column: [None if np.isnan(value) else value for value in values.tolist()]
        for column, values in {**indicators(series), "obv": on_balance(series)}.items()
    }
    for name, series in json.load(sys.stdin).items()
}
json.dump(answers, sys.stdout)
