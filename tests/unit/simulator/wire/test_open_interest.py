"""Texts of open interest, ratios and the basis, character by character."""

from dataclasses import replace

from simulator.clock import DAY_US
from simulator.market.derivatives.open_interest import TakerVolumes
from simulator.market.instruments import select_instruments
from simulator.wire.open_interest import (
    Metrics,
    base_value,
    basis_row,
    long_short_row,
    metrics_line,
    open_interest_row,
    open_interest_statistics_row,
    pair_open_interest_row,
    ratio_text,
    taker_ratio_row,
    taker_volumes_row,
)

(BTC,) = select_instruments("um", ["BTCUSDT"], seed=1)
(COIN,) = select_instruments("cm", ["BTCUSD_PERP"], seed=1)
TIME_US = 1_583_127_900_000_000
MARK = 737_970_000_000


def test_open_interest_has_the_decimals_of_the_quantity() -> None:
    time_ms = 1_589_437_530_011
    assert open_interest_row(BTC, 10_659_509, time_ms, contract_type="PERPETUAL") == {
        "symbol": "BTCUSDT", "openInterest": "10659.509", "time": time_ms,
    }  # fmt: skip
    assert open_interest_row(COIN, 15_004, time_ms, contract_type="PERPETUAL") == {
        "symbol": "BTCUSD_PERP", "pair": "BTCUSD", "openInterest": "15004",
        "contractType": "PERPETUAL", "time": time_ms,
    }  # fmt: skip


def test_statistics_have_eight_decimals() -> None:
    assert open_interest_statistics_row(BTC, 20_403_637, MARK, TIME_US) == {
        "symbol": "BTCUSDT",
        "sumOpenInterest": "20403.63700000",
        "sumOpenInterestValue": "150572719.96890000",
        "timestamp": 1_583_127_900_000,
    }
    negative = open_interest_statistics_row(BTC, -1, 1, TIME_US)
    assert negative["sumOpenInterest"] == "-0.00100000"
    assert negative["sumOpenInterestValue"] == "0.00000000"


def test_ratios_have_four_decimals() -> None:
    assert long_short_row(BTC, 6_442, TIME_US) == {
        "symbol": "BTCUSDT", "longAccount": "0.6442", "longShortRatio": "1.8105",
        "shortAccount": "0.3558", "timestamp": 1_583_127_900_000,
    }  # fmt: skip
    assert taker_ratio_row(BTC, TakerVolumes(387_330, 248_503, 0, 0), TIME_US) == {
        "buySellRatio": "1.5586", "sellVol": "248.5030", "buyVol": "387.3300",
        "timestamp": 1_583_127_900_000,
    }  # fmt: skip
    assert ratio_text(5, 0, 4) == "0.0000"
    assert ratio_text(-1, 3, 4) == "-0.3333"


def test_coin_m_has_rows_of_pairs_and_values_in_the_base_asset() -> None:
    assert base_value(COIN, 15_004, 737_970_000_000, 8) == 20_331_449_787
    assert base_value(COIN, -1, 737_970_000_000, 8) == -1_355_068
    assert pair_open_interest_row("BTCUSD", "ALL", 20_403, 17_619_651_223, TIME_US) == {
        "pair": "BTCUSD", "contractType": "ALL", "sumOpenInterest": "20403",
        "sumOpenInterestValue": "176.19651223", "timestamp": 1_583_127_900_000,
    }  # fmt: skip
    volumes = TakerVolumes(387, 248, 234_212_209_999, 421_398_000_000)
    assert taker_volumes_row("BTCUSD", "CURRENT_QUARTER", volumes, TIME_US) == {
        "pair": "BTCUSD", "contractType": "CURRENT_QUARTER",
        "takerBuyVol": "387", "takerSellVol": "248",
        "takerBuyVolValue": "2342.1220", "takerSellVolValue": "4213.9800",
        "timestamp": 1_583_127_900_000,
    }  # fmt: skip
    assert long_short_row(COIN, 6_442, TIME_US, is_position=True) == {
        "pair": "BTCUSD", "longPosition": "0.6442", "longShortRatio": "1.8105",
        "shortPosition": "0.3558", "timestamp": 1_583_127_900_000,
    }  # fmt: skip
    assert "longAccount" in long_short_row(COIN, 6_442, TIME_US)
    row = Metrics(TIME_US, 15_004, MARK, (3, 2), (1, 2), (1, 1), (1, 3))
    assert metrics_line(COIN, row).startswith(
        "2020-03-02 05:45:00,BTCUSD_PERP,15004.0000000000000000,203.3144978793175874,"
    )


def test_annualized_basis_is_for_the_days_until_the_delivery() -> None:
    dated = replace(BTC, delivery_us=TIME_US + 73 * DAY_US)
    row = basis_row(dated, "CURRENT_QUARTER", 3_440_000, 3_400_000_000_000, TIME_US)
    assert (row["basisRate"], row["annualizedBasisRate"]) == ("0.0117", "0.0588")
    due = basis_row(dated, "CURRENT_QUARTER", 3_440_000, 3_400_000_000_000, TIME_US + 73 * DAY_US)
    assert due["annualizedBasisRate"] == "0.0000"
    perpetual = basis_row(BTC, "PERPETUAL", 3_440_000, 3_400_000_000_000, TIME_US)
    assert perpetual["annualizedBasisRate"] == ""


def test_basis_is_the_difference_and_its_rate() -> None:
    row = basis_row(BTC, "PERPETUAL", 3_441_410, 3_440_015_945_055, TIME_US)
    assert (row["futuresPrice"], row["indexPrice"]) == ("34414.10", "34400.15945055")
    assert (row["basis"], row["basisRate"]) == ("13.94054945", "0.0004")


def test_metrics_line_is_as_recorded_and_may_have_empty_cells() -> None:
    row = Metrics(TIME_US, 76_643_191, MARK, (3, 2), (1, 2), (1, 1), (1, 3))
    assert metrics_line(BTC, row) == (
        "2020-03-02 05:45:00,BTCUSDT,76643.1910000000000000,565603756.6227000000000000,"
        "1.50000000,0.50000000,1.00000000,0.33333333\n"
    )
    empty = row._replace(top_accounts=None, top_positions=None, taker=None)
    assert metrics_line(BTC, empty).endswith(",,,1.00000000,\n")
