"""`exchangeInfo`: limits, filters and permissions of each symbol, with the exchange's fields."""

from typing import Any

from simulator.market.instruments import Instrument, MarketName
from simulator.market.quarters import NEVER_MS
from simulator.rest.parameters import ApiError, QueryParameters
from simulator.rest.venue import Row, Venue
from simulator.wire.payloads import US_PER_MS

_STATUSES = ("TRADING", "END_OF_DAY", "HALT", "BREAK", "CANCEL_ONLY")
_PERMISSIONS = ("SPOT", "MARGIN", "LEVERAGED")
_ORDERS = (("SECOND", 10, 100), ("DAY", 1, 200_000))
_FUTURES_ORDERS: dict[MarketName, tuple[tuple[str, int, int], ...]] = {
    "um": (("MINUTE", 1, 1_200), ("SECOND", 10, 300)),
    "cm": (("MINUTE", 1, 1_200),),
}
_RAW_REQUESTS = ("MINUTE", 5, 300_000)


def exchange_info(
    venue: Venue,
    params: QueryParameters,
    names: list[str] | None,
    *,
    weight_limit: int,
    unit_us: int,
) -> Row:
    """Return the complete answer.

    Args:
        names: symbols requested by `symbol` or `symbols`; None for all.

    Raises:
        ApiError: parameters that exclude each other, or an unknown permission or status.
    """
    is_spot = venue.name == "spot"
    status = params.text("symbolStatus")
    permissions = params.names("permissions")
    if is_spot:
        if names is not None and (status is not None or permissions is not None):
            raise ApiError(-1128, "Combination of optional parameters invalid.")
        if status is not None and status not in _STATUSES:
            raise ApiError(-1130, "Data sent for parameter 'symbolStatus' is not valid.")
        if any(name not in _PERMISSIONS for name in permissions or ()):
            raise ApiError(-1130, "Data sent for parameter 'permissions' is not valid.")
    shows_sets = (params.text("showPermissionSets") or "true").lower() == "true"
    symbols = [
        symbol_entry(venue, instrument)
        for instrument in venue.listed()
        if (names is None or instrument.symbol in names)
        and (permissions is None or "SPOT" in permissions)
    ]
    if status is not None and is_spot:
        symbols = [entry for entry in symbols if entry["status"] == status]
    if not shows_sets and is_spot:
        symbols = [entry | {"permissionSets": []} for entry in symbols]
    answer: Row = {
        "timezone": "UTC",
        "serverTime": venue.now_us() // unit_us,
        "rateLimits": rate_limits(venue.name, weight_limit),
        "exchangeFilters": [],
    }
    if venue.name == "um":
        answer |= {"futuresType": "U_MARGINED", "assets": _assets(venue)}
    return answer | {"symbols": symbols}


def rate_limits(market: MarketName, weight_limit: int) -> list[Row]:
    """Return the `rateLimits` of exchangeInfo."""
    limits = [_limit("REQUEST_WEIGHT", "MINUTE", 1, weight_limit)]
    limits += [_limit("ORDERS", *one) for one in _FUTURES_ORDERS.get(market, _ORDERS)]
    return limits if market != "spot" else [*limits, _limit("RAW_REQUESTS", *_RAW_REQUESTS)]


def _limit(kind: str, interval: str, number: int, limit: int) -> Row:
    return {
        "rateLimitType": kind,
        "interval": interval,
        "intervalNum": number,
        "limit": limit,
    }


def symbol_entry(venue: Venue, instrument: Instrument) -> Row:
    """Return a symbol of exchangeInfo."""
    if instrument.market == "cm":
        return _inverse_contract(venue, instrument)
    entry: Row = {
        "symbol": instrument.symbol,
        "status": venue.status(instrument.symbol),
        "baseAsset": instrument.base_asset,
        "baseAssetPrecision": 8,
        "quoteAsset": instrument.quote_asset,
        "quotePrecision": 8,
    }
    if instrument.market == "um":
        return entry | _contract(venue, instrument) | {"filters": _filters(instrument)}
    return entry | _SPOT | {"filters": _filters(instrument)} | _SPOT_PERMISSIONS


_SPOT: dict[str, Any] = {
    "quoteAssetPrecision": 8,
    "baseCommissionPrecision": 8,
    "quoteCommissionPrecision": 8,
    "orderTypes": [
        "LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT",
        "TAKE_PROFIT_LIMIT",
    ],
    "icebergAllowed": True,
    "ocoAllowed": True,
    "otoAllowed": True,
    "opoAllowed": True,
    "quoteOrderQtyMarketAllowed": True,
    "allowTrailingStop": True,
    "cancelReplaceAllowed": True,
    "amendAllowed": True,
    "pegInstructionsAllowed": True,
    "isSpotTradingAllowed": True,
    "isMarginTradingAllowed": False,
}  # fmt: skip
_SPOT_PERMISSIONS: dict[str, Any] = {
    "permissions": [],
    "permissionSets": [["SPOT"]],
    "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
    "allowedSelfTradePreventionModes": [
        "EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH", "DECREMENT",
    ],
}  # fmt: skip


def _contract(venue: Venue, instrument: Instrument) -> Row:
    """Return the fields of a contract of USD-M, in place of a spot pair's permissions."""
    return {
        "pair": instrument.pair,
        "contractType": venue.contract_type(instrument.symbol),
        "deliveryDate": _delivery_ms(venue, instrument),
        "onboardDate": _onboard_ms(venue, instrument),
        "marginAsset": instrument.margin_asset,
        "pricePrecision": instrument.price_decimals,
        "quantityPrecision": instrument.quantity_decimals,
        "underlyingType": "COIN",
        "underlyingSubType": ["Layer-1"],
        "maintMarginPercent": "2.5000",
        "requiredMarginPercent": "5.0000",
        "triggerProtect": "0.0500",
        "liquidationFee": "0.012500",
        "marketTakeBound": "0.05",
        "maxMoveOrderLimit": 10_000,
        "permissionSets": ["GRID", "COPY"],
        "orderTypes": [
            "LIMIT", "MARKET", "STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET",
            "TRAILING_STOP_MARKET",
        ],
        "timeInForce": ["GTC", "IOC", "FOK", "GTX", "GTD"],
    }  # fmt: skip


def _delivery_ms(venue: Venue, instrument: Instrument) -> int:
    delivery_us = venue.delivery_us(instrument.symbol)
    return NEVER_MS if delivery_us is None else delivery_us // US_PER_MS


def _onboard_ms(venue: Venue, instrument: Instrument) -> int:
    """Return the listing of a contract; a dated one may be older than the simulated history."""
    return (instrument.onboard_us or venue.listed_since_us(instrument.symbol)) // US_PER_MS


def _inverse_contract(venue: Venue, instrument: Instrument) -> Row:
    """Return a symbol of COIN-M, with the fields and values recorded in 2021."""
    is_dated = instrument.is_dated
    return {
        "symbol": instrument.symbol,
        "pair": instrument.pair,
        "contractType": venue.contract_type(instrument.symbol),
        "deliveryDate": _delivery_ms(venue, instrument),
        "onboardDate": _onboard_ms(venue, instrument),
        "contractStatus": venue.status(instrument.symbol),
        "contractSize": instrument.contract_size,
        "marginAsset": instrument.margin_asset,
        "maintMarginPercent": "2.5000",
        "requiredMarginPercent": "5.0000",
        "baseAsset": instrument.base_asset,
        "quoteAsset": instrument.quote_asset,
        "pricePrecision": instrument.price_decimals,
        "quantityPrecision": instrument.quantity_decimals,
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "equalQtyPrecision": 4,
        "maxMoveOrderLimit": 10_000,
        "triggerProtect": "0.0500",
        "underlyingType": "COIN",
        "underlyingSubType": [],
        "filters": _inverse_filters(instrument, largest="10000" if is_dated else "100000"),
        "orderTypes": [
            "LIMIT", "MARKET", "STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET",
            "TRAILING_STOP_MARKET",
        ],
        "timeInForce": ["GTC", "IOC", "FOK", "GTX"],
        "liquidationFee": "0.006000" if instrument.base_asset == "BTC" else "0.010000",
        "marketTakeBound": "0.30",
    }  # fmt: skip


def _inverse_filters(instrument: Instrument, *, largest: str) -> list[Row]:
    price, quantity = instrument.format_price, instrument.format_quantity
    highest = price(10**6 * 10**instrument.price_decimals)
    tick, step = price(instrument.tick), quantity(instrument.step)
    return [
        {"minPrice": tick, "maxPrice": highest, "filterType": "PRICE_FILTER", "tickSize": tick},
        {"stepSize": step, "filterType": "LOT_SIZE", "maxQty": "1000000", "minQty": step},
        {"stepSize": step, "filterType": "MARKET_LOT_SIZE", "maxQty": largest, "minQty": step},
        {"limit": 200, "filterType": "MAX_NUM_ORDERS"},
        {"limit": 100, "filterType": "MAX_NUM_ALGO_ORDERS"},
        {
            "multiplierDown": "0.8500",
            "multiplierUp": "1.1500",
            "multiplierDecimal": "4",
            "filterType": "PERCENT_PRICE",
        },
    ]


def _filters(instrument: Instrument) -> list[Row]:
    price, quantity = instrument.format_price, instrument.format_quantity
    highest = price(10**6 * 10**instrument.price_decimals)
    largest = quantity(9 * 10**9 * 10**instrument.quantity_decimals)
    tick, step = price(instrument.tick), quantity(instrument.step)
    filters: list[Row] = [
        {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": highest, "tickSize": tick},
        {"filterType": "LOT_SIZE", "minQty": step, "maxQty": largest, "stepSize": step},
    ]
    if instrument.market == "um":
        return [
            *filters,
            {"filterType": "MARKET_LOT_SIZE", "minQty": step, "maxQty": largest, "stepSize": step},
            {"filterType": "MAX_NUM_ORDERS", "limit": 200},
            {"filterType": "MAX_NUM_ALGO_ORDERS", "limit": 10},
            {"filterType": "MIN_NOTIONAL", "notional": "5"},
            {
                "filterType": "PERCENT_PRICE",
                "multiplierUp": "1.0500",
                "multiplierDown": "0.9500",
                "multiplierDecimal": "4",
            },
            {"filterType": "POSITION_RISK_CONTROL", "positionControlSide": "NONE"},
        ]
    none = quantity(0)
    return [
        *filters,
        {"filterType": "ICEBERG_PARTS", "limit": 10},
        {"filterType": "MARKET_LOT_SIZE", "minQty": none, "maxQty": largest, "stepSize": none},
        {
            "filterType": "TRAILING_DELTA",
            "minTrailingAboveDelta": 10,
            "maxTrailingAboveDelta": 2_000,
            "minTrailingBelowDelta": 10,
            "maxTrailingBelowDelta": 2_000,
        },
        {
            "filterType": "PERCENT_PRICE_BY_SIDE",
            "bidMultiplierUp": "5",
            "bidMultiplierDown": "0.2",
            "askMultiplierUp": "5",
            "askMultiplierDown": "0.2",
            "avgPriceMins": 5,
        },
        {
            "filterType": "NOTIONAL",
            "minNotional": "0.00010000" if instrument.quote_asset == "BTC" else "5.00000000",
            "applyMinToMarket": True,
            "maxNotional": "9000000.00000000",
            "applyMaxToMarket": False,
            "avgPriceMins": 5,
        },
        {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": 200},
        {"filterType": "MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders": 5},
    ]


def _assets(venue: Venue) -> list[Row]:
    """Return USD-M's margin assets: the quote assets of its contracts."""
    names = sorted({instrument.quote_asset for instrument in venue.listed()})
    return [
        {"asset": name, "marginAvailable": True, "autoAssetExchange": "-10000"} for name in names
    ]
