"""Parse ``--columns``: which columns of a foreign file have our values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from include.counts import counted
from include.errors import RejectedInputError, WrongValueError

REQUIRED = ("open_time", "open", "high", "low", "close")
OPTIONAL = (
    "volume", "quote_volume", "trade_count", "taker_buy_volume", "taker_buy_quote_volume",
)  # fmt: skip
SYMBOL = "symbol"
SKIPPED = "-"

_ALIASES = {
    "open_time": ("opentime", "time", "timestamp", "date", "datetime"),
    "quote_volume": ("quotevolume", "quoteassetvolume", "qav"),
    "trade_count": ("tradecount", "count", "numberoftrades", "numtrades", "trades"),
    "taker_buy_volume": ("takerbuyvolume", "takerbuybaseassetvolume", "takerbasevol"),
    "taker_buy_quote_volume": ("takerbuyquotevolume", "takerbuyquoteassetvolume", "takerquotevol"),
}
_EXAMPLES = (
    "--columns auto, --columns open_time=time,volume=vol, or all columns in the file's order: "
    "--columns open_time,open,high,low,close,volume,-"
)


class ColumnsError(RejectedInputError):
    """``--columns`` does not fit a file; it may fit others."""


@dataclass(frozen=True, slots=True)
class ColumnMap:
    """A parsed ``--columns``.

    Attributes:
        names: the file's name of our columns, where the user gave it.
        order: our name of each column of the file, ``-`` for columns without use; empty if names
            decide.
    """

    names: dict[str, str]
    order: tuple[str, ...] = ()


def column_map(text: str) -> ColumnMap:
    """Parse ``auto``, ``ours=theirs,…``, or our names in the file's order.

    Raises:
        PermanentError: a name is unknown, given twice or missing.
    """
    parts = [part.strip() for part in text.split(",")]
    if parts == ["auto"]:
        return ColumnMap({})
    is_by_name = "=" in text
    names: dict[str, str] = {}
    for part in parts:
        ours, equals, theirs = (one.strip() for one in part.partition("="))
        if not is_by_name and ours == SKIPPED:
            continue
        if ours not in (*REQUIRED, *OPTIONAL, SYMBOL) or bool(equals) != is_by_name:
            known = ", ".join((*REQUIRED, *OPTIONAL, SYMBOL))
            raise WrongValueError(f"--columns: {part!r} is none of {known}; write {_EXAMPLES}")
        if ours in names or (equals and not theirs):
            raise WrongValueError(f"--columns: {ours} is given twice or has no name of the file")
        names[ours] = theirs
    if is_by_name:
        return ColumnMap(names)
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise WrongValueError(f"--columns lacks {', '.join(missing)}; write {_EXAMPLES}")
    return ColumnMap({}, tuple(parts))


def placed(chosen: ColumnMap, header: Sequence[str] | None, width: int, *, file: str) -> list[str]:
    """Return our name of each of a file's columns; ``-`` for columns without use.

    Names that the user did not give are found by themselves, or by usual names of others.

    Args:
        header: the file's names; None if it has no header.
        width: number of columns.

    Raises:
        ColumnsError: a column is missing, or may be any of several.
    """
    if chosen.order:
        if len(chosen.order) != width:
            raise ColumnsError(
                f"{file} has {counted(width, 'column')}, --columns has {len(chosen.order)}: "
                "name each, or - for columns without use"
            )
        return list(chosen.order)
    if header is None:
        raise ColumnsError(
            f"{file} has no header: give all columns in the file's order, such as --columns "
            "open_time,open,high,low,close,volume,-"
        )
    plain = [_plain(name) for name in header]
    found = [SKIPPED] * width
    for ours in (*REQUIRED, *OPTIONAL, SYMBOL):
        theirs = chosen.names.get(ours)
        if theirs is not None:
            places = [at for at, name in enumerate(header) if name == theirs]
            places = places or [at for at, name in enumerate(plain) if name == _plain(theirs)]
            if not places:
                raise ColumnsError(f"{file} has no column {theirs}, which --columns names")
        else:
            usual = (_plain(ours), *_ALIASES.get(ours, ()))
            places = [at for name in dict.fromkeys(usual) for at, one in enumerate(plain)
                      if one == name and found[at] == SKIPPED
                      and header[at] not in chosen.names.values()][:1]  # fmt: skip
        if not places and ours in REQUIRED:
            raise ColumnsError(f"{file} has no column for {ours}: give --columns {ours}=NAME")
        if len(places) > 1:
            raise ColumnsError(f"{file} has {len(places)} columns {theirs}")
        if places:
            if found[places[0]] != SKIPPED:
                raise ColumnsError(
                    f"{file}: --columns maps one column to {found[places[0]]} and {ours}"
                )
            found[places[0]] = ours
    return found


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace(" ", "")
