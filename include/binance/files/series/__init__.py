"""Files of derivative series: price klines, funding rates, metrics."""
