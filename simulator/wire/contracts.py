"""Stream payload about a contract; times in ms."""

from simulator.market.market import SimulatedMarket
from simulator.market.quarters import NEVER_MS
from simulator.wire.payloads import US_PER_MS


def contract_info_payload(market: SimulatedMarket, symbol: str, *, at_us: int) -> str:
    """Return the `contractInfo` payload as of a time, without the brackets `bks`."""
    history = market.history(symbol)
    instrument, delivery_us = history.instrument, history.delivery_us
    delivery_ms = NEVER_MS if delivery_us is None else delivery_us // US_PER_MS
    onboard_us = instrument.onboard_us or history.listed_since_us(at_us)
    return (
        f'{{"e":"contractInfo","E":{at_us // US_PER_MS},"s":"{symbol}","ps":"{instrument.pair}",'
        f'"ct":"{market.contract_type(symbol, at_us)}","dt":{delivery_ms},'
        f'"ot":{onboard_us // US_PER_MS},"cs":"{market.status(symbol, at_us)}"}}'
    )
