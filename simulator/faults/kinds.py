"""A table of all kinds of faults with their selectors and parameters.

Validation, the command line's help and the tables in the documentation use it.
"""

from dataclasses import dataclass
from typing import Final, Literal

Value = str | int | float | bool | None
FaultGroup = Literal["connection", "frame", "market", "series", "rest", "dump"]
Selector = Literal["symbols", "streams", "endpoints", "files"]

REQUIRED: Final = object()
"""Default of a parameter that has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultParameter:
    """A field of an entry that only some kinds have.

    Attributes:
        type: required JSON type; a `number` may be an integer.
        default: value if the entry has none; None: not used.
        lowest, highest: inclusive bounds of numbers.
    """

    name: str
    type: Literal["number", "integer", "boolean", "text"]
    meaning: str
    default: object = REQUIRED
    lowest: float = 0
    highest: float = 1e9
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultKind:
    """One kind of fault.

    Attributes:
        selectors: fields that select what is hit; each a pattern or a list of them.
        required: mandatory selectors.
        lasts: has a duration; without one it lasts until it is removed.
        streams, endpoints: default patterns.
    """

    name: str
    group: FaultGroup
    meaning: str
    selectors: tuple[Selector, ...]
    required: tuple[Selector, ...] = ()
    lasts: bool = True
    streams: tuple[str, ...] = ("*",)
    endpoints: tuple[str, ...] = ("*",)
    parameters: tuple[FaultParameter, ...] = ()


def _share(default: float) -> FaultParameter:
    return FaultParameter(name="share", type="number", default=default, highest=1,
                     meaning="share of matching frames that is hit, 0 to 1")  # fmt: skip


def _span(name: str, default: object, meaning: str, highest: float = 1e9) -> FaultParameter:
    return FaultParameter(
        name=name, type="number", default=default, highest=highest, meaning=meaning
    )


_TIMES = FaultParameter(name="times", type="integer", default=None, lowest=1,
                   meaning="maximum number of hits")  # fmt: skip
_REPLACES = FaultParameter(name="replaces", type="boolean", default=False,
                      meaning="replaces the true frame instead of preceding it")  # fmt: skip
_FITS = FaultParameter(name="checksum_fits", type="boolean", default=False,
                  meaning="the CHECKSUM matches the broken file")  # fmt: skip
_ALTERED = FaultParameter(name="rows", type="integer", default=3, lowest=1, highest=100_000,
                     meaning="number of altered rows")  # fmt: skip
_CHANGED = FaultParameter(name="rows", type="integer", default=3, lowest=1, highest=1_500,
                     meaning="number of rows of each page or file")  # fmt: skip
_TRADES = ("*@aggTrade", "*@trade")
_FRAME: tuple[Selector, ...] = ("symbols", "streams")
_REST: tuple[Selector, ...] = ("symbols", "endpoints")
_DUMP: tuple[Selector, ...] = ("symbols", "files")

_KINDS = (
    # --- connections
    FaultKind(name="cut", group="connection", selectors=("streams",), lasts=False,
         meaning="connections are reset (TCP)"),
    FaultKind(name="stall", group="connection", selectors=("streams",),
         meaning="current connections send nothing while TCP stays open (half-open)"),
    FaultKind(name="shutdown", group="connection", selectors=("streams",), lasts=False,
         meaning="`serverShutdown` is sent and the connection closed later",
         parameters=(_span("grace_s", 10, "simulated seconds from the event to the close"),)),
    FaultKind(name="refuse", group="connection", selectors=(),
         meaning="new connections are reset, or their handshake gets an error status",
         parameters=(FaultParameter(name="status", type="integer", default=None, lowest=400,
                               highest=599, meaning="HTTP status; without it: reset"),)),
    # --- frames
    FaultKind(name="duplicate", group="frame", selectors=_FRAME,
         meaning="frames are sent more than once",
         parameters=(_share(1), FaultParameter(name="copies", type="integer", default=1, lowest=1,
                                          highest=100, meaning="number of copies"),
                     _span("delay_ms", 0, "delay of the copies"))),
    FaultKind(name="reorder", group="frame", selectors=_FRAME,
         meaning="frames are sent after later ones of their stream",
         parameters=(_share(0.2), _span("delay_ms", 200, "delay of the frames"))),
    FaultKind(name="late", group="frame", selectors=_FRAME, streams=_TRADES,
         meaning="trades at a minute's end are sent after the minute",
         parameters=(_share(1), _span("within_ms", 1_000, "time before the minute's end", 60_000),
                     _span("delay_ms", 1_500, "delay after the minute's end"))),
    FaultKind(name="drop", group="frame", selectors=_FRAME, meaning="frames are not sent",
         parameters=(_share(1),)),
    FaultKind(name="void", group="frame", selectors=_FRAME, streams=_TRADES,
         meaning="trades of price 0 and quantity 0 with the id of a true one",
         parameters=(_share(0.1), _REPLACES)),
    FaultKind(name="malformed", group="frame", selectors=_FRAME,
         meaning="frames that cannot be parsed",
         parameters=(_share(0.1), _REPLACES,
                     FaultParameter(name="form", type="text", default="truncated",
                               choices=("truncated", "not_json", "missing_field", "wrong_type"),
                               meaning="what is wrong with them"))),
    FaultKind(name="unknown", group="frame", selectors=_FRAME,
         meaning="frames of an unknown event type, or with a new field",
         parameters=(_share(0.1),
                     FaultParameter(name="form", type="text", default="event",
                               choices=("event", "field", "array"),
                               meaning="a new event, a new field in a true frame, a bare array"))),
    FaultKind(name="kline_lag", group="frame", selectors=_FRAME, streams=("*@kline_*",),
         meaning="kline frames are sent late, in order",
         parameters=(_span("lag_ms", 3_000, "delay of the frames"),)),
    FaultKind(name="wrong_kline", group="frame", selectors=_FRAME, streams=("*@kline_*",),
         meaning="final klines with trades have wrong values; REST has the true ones",
         parameters=(_share(1), FaultParameter(name="form", type="text", default="volume",
                                               choices=("volume", "close", "trades"),
                                               meaning="both volumes too high, another close, "
                                               "a trade too few"))),
    # --- the market itself
    FaultKind(name="halt", group="market", selectors=("symbols",), required=("symbols",),
         meaning="no trades; no klines on spot, empty ones on USD-M"),
    FaultKind(name="delisting", group="market", selectors=("symbols",), required=("symbols",),
         lasts=False, meaning="trading ends; past data stays"),
    FaultKind(name="new_listing", group="market", selectors=("symbols",), required=("symbols",),
         lasts=False, meaning="a symbol is listed at a full minute"),
    FaultKind(name="ticker_reuse", group="market", selectors=("symbols",), required=("symbols",),
         lasts=False, meaning="a symbol is delisted; another instrument is listed under its name",
         parameters=(_span("pause_s", 3_600, "simulated seconds between delisting and listing"),)),
    # --- derivative series
    FaultKind(name="funding_interval", group="series", selectors=("symbols",), lasts=False,
         meaning="perpetual contracts settle funding at another interval from then on",
         parameters=(FaultParameter(name="hours", type="integer", default=4, lowest=1, highest=24,
                               meaning="hours between settlements"),)),
    FaultKind(name="missing_settlement", group="series", selectors=("symbols",),
         meaning="settlements of funding are not recorded"),
    FaultKind(name="negative_open_interest", group="series", selectors=("symbols",),
         meaning="open interest is served as a negative number"),
    FaultKind(name="liquidation", group="series", selectors=("symbols",), lasts=False,
         meaning="a liquidation is added, the last one of its second",
         parameters=(FaultParameter(name="side", type="text", default="SELL",
                               choices=("SELL", "BUY"), meaning="side of the order"),
                     _span("quantity", 1, "quantity of the order"))),
    FaultKind(name="series_lag", group="series", selectors=("symbols",),
         meaning="REST omits rows of series younger than this",
         parameters=(_span("lag_s", 10_800, "simulated seconds"),)),
    FaultKind(name="missing_rows", group="series", selectors=("symbols",),
         meaning="pages and files of series lack rows within them",
         parameters=(_CHANGED,)),
    FaultKind(name="duplicate_rows", group="series", selectors=("symbols",),
         meaning="pages and files of series have rows twice", parameters=(_CHANGED,)),
    FaultKind(name="unsorted_rows", group="series", selectors=("symbols",),
         meaning="files of series are not sorted"),
    FaultKind(name="empty_cells", group="series", selectors=("symbols",),
         meaning="files of series have empty cells: the ratios of `metrics`, else the last column",
         parameters=(_CHANGED,)),
    # --- REST
    FaultKind(name="rest_lag", group="rest", selectors=("symbols",),
         meaning="REST omits trades younger than this",
         parameters=(_span("kline_lag_ms", 5_000, "of klines"),
                     _span("trade_lag_ms", 5_000, "of trades and aggTrades"))),
    FaultKind(name="slow_rest", group="rest", selectors=_REST, meaning="answers are slow",
         parameters=(_span("delay_s", 5, "real seconds", 600), _TIMES)),
    FaultKind(name="rest_error", group="rest", selectors=_REST,
         meaning="requests are answered with an error",
         parameters=(FaultParameter(name="status", type="integer", default=503, lowest=400,
                               highest=599, meaning="HTTP status: 5xx, 403, 418, 429 …"),
                     _span("retry_after_s", None, "the Retry-After header, real seconds"),
                     _TIMES)),
    FaultKind(name="rest_malformed", group="rest", selectors=_REST,
         meaning="answers cannot be parsed",
         parameters=(FaultParameter(name="form", type="text", default="truncated",
                               choices=("truncated", "not_json"), meaning="what is wrong"),
                     _TIMES)),
    FaultKind(name="rest_cut", group="rest", selectors=_REST, parameters=(_TIMES,),
         meaning="the connection is reset within an answer"),
    FaultKind(name="rest_stale", group="rest", selectors=_REST,
         meaning="pages lack their last rows",
         parameters=(FaultParameter(name="rows", type="integer", default=1, lowest=1, highest=1_500,
                               meaning="number of missing rows"), _TIMES)),
    FaultKind(name="rest_void", group="rest", selectors=_REST, endpoints=("aggTrades",),
         meaning="aggTrades have rows of price 0 and quantity 0 with the id of a true one",
         parameters=(FaultParameter(name="rows", type="integer", default=3, lowest=1, highest=1_000,
                               meaning="number per page"), _TIMES)),
    # --- dumps
    FaultKind(name="corrupt_zip", group="dump", selectors=_DUMP, parameters=(_FITS, _TIMES),
         meaning="bytes of zips are flipped"),
    FaultKind(name="truncated_zip", group="dump", selectors=_DUMP, parameters=(_FITS, _TIMES),
         meaning="zips are truncated"),
    FaultKind(name="stale_checksum", group="dump", selectors=_DUMP, parameters=(_TIMES,),
         meaning="CHECKSUM files do not match the zips"),
    FaultKind(name="missing_checksum", group="dump", selectors=_DUMP, parameters=(_TIMES,),
         meaning="CHECKSUM files are missing"),
    FaultKind(name="truncated_day", group="dump", selectors=_DUMP,
         meaning="files lack their last rows; the checksum matches",
         parameters=(FaultParameter(name="rows", type="integer", default=60, lowest=1,
                               meaning="number of missing rows"),)),
    FaultKind(name="missing_day", group="dump", selectors=_DUMP,
         meaning="files are neither listed nor served"),
    FaultKind(name="late_publication", group="dump", selectors=_DUMP,
         meaning="files are published late",
         parameters=(_span("delay_s", 6 * 3_600, "simulated seconds after the usual time"),)),
    FaultKind(name="reissued", group="dump", selectors=_DUMP,
         meaning="at `at`, files get other values, a new checksum and a new date",
         parameters=(_ALTERED, FaultParameter(name="is_repair", type="boolean", default=True,
                                         meaning="the first issue is the wrong one, "
                                         "not the second"))),
    FaultKind(name="monthly_differs", group="dump", selectors=_DUMP,
         meaning="monthly files differ from daily ones",
         parameters=(_ALTERED,)),
    FaultKind(name="slow_download", group="dump", selectors=_DUMP, meaning="downloads are slow",
         parameters=(_span("delay_s", 5, "real seconds", 600), _TIMES)),
    FaultKind(name="cut_download", group="dump", selectors=_DUMP, parameters=(_TIMES,),
         meaning="the connection is reset within a file"),
    FaultKind(name="download_error", group="dump", selectors=_DUMP,
         meaning="zips and checksums answer with an error",
         parameters=(FaultParameter(name="status", type="integer", default=503, lowest=400,
                               highest=599, meaning="HTTP status"), _TIMES)),
    FaultKind(name="listing_error", group="dump", selectors=(),
         meaning="the listing answers with an error",
         parameters=(FaultParameter(name="status", type="integer", default=503, lowest=400,
                               highest=599, meaning="HTTP status"), _TIMES)),
)  # fmt: skip

KINDS: Final = {kind.name: kind for kind in _KINDS}
"""All kinds by name."""
