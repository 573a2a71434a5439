"""The vocabulary of faults: each kind with its selectors and parameters, as one table.

Validation, the command line's help and the documentation's tables all read it.
"""

from dataclasses import dataclass
from typing import Final, Literal

Value = str | int | float | bool | None
FaultGroup = Literal["connection", "frame", "market", "rest", "dump"]
Selector = Literal["symbols", "streams", "endpoints", "files"]

REQUIRED: Final = object()
"""Default of a parameter that has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultParameter:
    """A field of an entry that only some kinds know.

    Attributes:
        type: what JSON has to hold; a `number` may be an integer.
        default: the value where the entry names none; None: not used.
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
        selectors: the fields that say what is hit; each a pattern or a list of them.
        required: selectors without which the entry makes no sense.
        lasts: whether it has a duration; without one it lasts until it is removed.
        streams, endpoints: patterns of those hit where the entry names none.
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
                     meaning="part of the matching frames that is hit, 0 to 1")  # fmt: skip


def _span(name: str, default: object, meaning: str, highest: float = 1e9) -> FaultParameter:
    return FaultParameter(
        name=name, type="number", default=default, highest=highest, meaning=meaning
    )


_TIMES = FaultParameter(name="times", type="integer", default=None, lowest=1,
                   meaning="end after so many hits")  # fmt: skip
_REPLACES = FaultParameter(name="replaces", type="boolean", default=False,
                      meaning="instead of the true frame, not before it")  # fmt: skip
_FITS = FaultParameter(name="checksum_fits", type="boolean", default=False,
                  meaning="the CHECKSUM is that of the broken file")  # fmt: skip
_ALTERED = FaultParameter(name="rows", type="integer", default=3, lowest=1, highest=100_000,
                     meaning="how many rows have other values")  # fmt: skip
_TRADES = ("*@aggTrade", "*@trade")
_FRAME: tuple[Selector, ...] = ("symbols", "streams")
_REST: tuple[Selector, ...] = ("symbols", "endpoints")
_DUMP: tuple[Selector, ...] = ("symbols", "files")

_KINDS = (
    # --- connections
    FaultKind(name="cut", group="connection", selectors=("streams",), lasts=False,
         meaning="connections are dropped by a TCP reset"),
    FaultKind(name="stall", group="connection", selectors=("streams",),
         meaning="present connections fall silent while TCP stays open (half-open)"),
    FaultKind(name="shutdown", group="connection", selectors=("streams",), lasts=False,
         meaning="`serverShutdown` is sent, the connection closed later",
         parameters=(_span("grace_s", 10, "simulated seconds from the event to the close"),)),
    FaultKind(name="refuse", group="connection", selectors=(),
         meaning="new connections are reset, or their handshake answered with a status",
         parameters=(FaultParameter(name="status", type="integer", default=None, lowest=400,
                               highest=599, meaning="HTTP status; without it: reset"),)),
    # --- frames
    FaultKind(name="duplicate", group="frame", selectors=_FRAME,
         meaning="frames come more than once",
         parameters=(_share(1), FaultParameter(name="copies", type="integer", default=1, lowest=1,
                                          highest=100, meaning="how often again"),
                     _span("delay_ms", 0, "how much later the copies come"))),
    FaultKind(name="reorder", group="frame", selectors=_FRAME,
         meaning="frames come after later ones of their stream",
         parameters=(_share(0.2), _span("delay_ms", 200, "how long they are held back"))),
    FaultKind(name="late", group="frame", selectors=_FRAME, streams=_TRADES,
         meaning="trades of a minute's end come after the minute is over",
         parameters=(_share(1), _span("within_ms", 1_000, "how near the minute's end", 60_000),
                     _span("delay_ms", 1_500, "how long after the minute's end"))),
    FaultKind(name="drop", group="frame", selectors=_FRAME, meaning="frames never come",
         parameters=(_share(1),)),
    FaultKind(name="void", group="frame", selectors=_FRAME, streams=_TRADES,
         meaning="trades of price 0 and quantity 0 that bear the id of a true one",
         parameters=(_share(0.1), _REPLACES)),
    FaultKind(name="malformed", group="frame", selectors=_FRAME,
         meaning="frames that cannot be read",
         parameters=(_share(0.1), _REPLACES,
                     FaultParameter(name="form", type="text", default="truncated",
                               choices=("truncated", "not_json", "missing_field", "wrong_type"),
                               meaning="what is wrong with them"))),
    FaultKind(name="unknown", group="frame", selectors=_FRAME,
         meaning="frames of a kind nobody has heard of, or with a new field",
         parameters=(_share(0.1),
                     FaultParameter(name="form", type="text", default="event",
                               choices=("event", "field", "array"),
                               meaning="a new event, a new field in a true frame, a bare array"))),
    FaultKind(name="kline_lag", group="frame", selectors=_FRAME, streams=("*@kline_*",),
         meaning="kline frames come late, in their order",
         parameters=(_span("lag_ms", 3_000, "by how much"),)),
    # --- the market itself
    FaultKind(name="halt", group="market", selectors=("symbols",), required=("symbols",),
         meaning="no trades; no klines on spot, empty ones on USD-M"),
    FaultKind(name="delisting", group="market", selectors=("symbols",), required=("symbols",),
         lasts=False, meaning="the last trade; the past stays"),
    FaultKind(name="new_listing", group="market", selectors=("symbols",), required=("symbols",),
         lasts=False, meaning="a symbol appears, from a full minute on"),
    FaultKind(name="ticker_reuse", group="market", selectors=("symbols",), required=("symbols",),
         lasts=False, meaning="a symbol is delisted; its name comes back as another instrument",
         parameters=(_span("pause_s", 3_600, "simulated seconds between the two"),)),
    # --- REST
    FaultKind(name="rest_lag", group="rest", selectors=("symbols",),
         meaning="REST leaves out trades younger than this",
         parameters=(_span("kline_lag_ms", 5_000, "of klines"),
                     _span("trade_lag_ms", 5_000, "of trades and aggTrades"))),
    FaultKind(name="slow_rest", group="rest", selectors=_REST, meaning="answers take long",
         parameters=(_span("delay_s", 5, "real seconds", 3_600), _TIMES)),
    FaultKind(name="rest_error", group="rest", selectors=_REST,
         meaning="requests are answered with an error",
         parameters=(FaultParameter(name="status", type="integer", default=503, lowest=400,
                               highest=599, meaning="HTTP status: 5xx, 403, 418, 429 …"),
                     _span("retry_after_s", None, "the Retry-After header, real seconds"),
                     _TIMES)),
    FaultKind(name="rest_malformed", group="rest", selectors=_REST, meaning="bodies cannot be read",
         parameters=(FaultParameter(name="form", type="text", default="truncated",
                               choices=("truncated", "not_json"), meaning="what is wrong"),
                     _TIMES)),
    FaultKind(name="rest_cut", group="rest", selectors=_REST, parameters=(_TIMES,),
         meaning="the connection drops in the middle of an answer"),
    FaultKind(name="rest_stale", group="rest", selectors=_REST,
         meaning="pages lack their last rows",
         parameters=(FaultParameter(name="rows", type="integer", default=1, lowest=1, highest=1_500,
                               meaning="how many"), _TIMES)),
    FaultKind(name="rest_void", group="rest", selectors=_REST, endpoints=("aggTrades",),
         meaning="aggTrades have rows of price 0 and quantity 0 that bear the id of a true one",
         parameters=(FaultParameter(name="rows", type="integer", default=3, lowest=1, highest=1_000,
                               meaning="how many a page"), _TIMES)),
    # --- dumps
    FaultKind(name="corrupt_zip", group="dump", selectors=_DUMP, parameters=(_FITS, _TIMES),
         meaning="bytes of zips are flipped"),
    FaultKind(name="truncated_zip", group="dump", selectors=_DUMP, parameters=(_FITS, _TIMES),
         meaning="zips end too early"),
    FaultKind(name="stale_checksum", group="dump", selectors=_DUMP, parameters=(_TIMES,),
         meaning="CHECKSUM files are those of other bytes"),
    FaultKind(name="missing_checksum", group="dump", selectors=_DUMP, parameters=(_TIMES,),
         meaning="CHECKSUM files are not there"),
    FaultKind(name="truncated_day", group="dump", selectors=_DUMP,
         meaning="files lack rows at their end, under a right checksum",
         parameters=(FaultParameter(name="rows", type="integer", default=60, lowest=1,
                               meaning="how many"),)),
    FaultKind(name="missing_day", group="dump", selectors=_DUMP,
         meaning="files are neither listed nor served"),
    FaultKind(name="late_publication", group="dump", selectors=_DUMP,
         meaning="files appear later",
         parameters=(_span("delay_s", 6 * 3_600, "simulated seconds after the usual time"),)),
    FaultKind(name="reissued", group="dump", selectors=_DUMP,
         meaning="from `at` on files have other values, a new checksum and a new date",
         parameters=(_ALTERED, FaultParameter(name="is_repair", type="boolean", default=True,
                                         meaning="the first issue is the wrong one, not the "
                                         "second"))),
    FaultKind(name="monthly_differs", group="dump", selectors=_DUMP,
         meaning="monthly files have other values than daily ones",
         parameters=(_ALTERED,)),
    FaultKind(name="slow_download", group="dump", selectors=_DUMP, meaning="downloads take long",
         parameters=(_span("delay_s", 5, "real seconds", 3_600), _TIMES)),
    FaultKind(name="cut_download", group="dump", selectors=_DUMP, parameters=(_TIMES,),
         meaning="the connection drops in the middle of a file"),
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
