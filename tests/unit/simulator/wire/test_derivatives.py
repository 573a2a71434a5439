"""Payloads of USD-M alone, character by character."""

from simulator.market.derivatives.liquidations import Liquidation
from simulator.market.derivatives.series import MarkPrice
from simulator.market.instruments import select_instruments
from simulator.wire.derivatives import force_order_payload, mark_price_payload

(BTC,) = select_instruments("um", ["BTCUSDT"], seed=1)
TIME_US = 1_562_305_380_000_000


def test_mark_price_has_eight_decimals_and_the_next_funding() -> None:
    mark = MarkPrice(
        TIME_US, 1_179_415_000_000, 1_179_400_000_001, 1_178_462_659_091, 1_178_425_641_265,
        -38_167, 1_562_306_400_000_000,
    )  # fmt: skip
    assert mark_price_payload(BTC, mark, event_us=TIME_US) == (
        '{"e":"markPriceUpdate","E":1562305380000,"s":"BTCUSDT","p":"11794.15000000","ap":"11794.00000001",'
        '"P":"11784.25641265","i":"11784.62659091","r":"-0.00038167","T":1562306400000}'
    )


def test_liquidation_is_a_filled_order() -> None:
    order = Liquidation(TIME_US - 6_000, True, 3_460_303, 3_473_838, 29, 23)
    assert force_order_payload(BTC, order, event_us=TIME_US) == (
        '{"e":"forceOrder","E":1562305380000,"o":{"s":"BTCUSDT","S":"SELL","o":"LIMIT","f":"IOC",'
        '"q":"0.029","p":"34603.03","ap":"34738.38","X":"FILLED","l":"0.023","z":"0.029",'
        '"T":1562305379994,"ps":"BTCUSDT","st":1}}'
    )
