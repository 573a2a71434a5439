"""Errors that say whether trying again can help.

::

    CandelabraError
    ├── TransientError      try again later: network, 5xx, 429, database away
    │   └── RateLimitedError    carries how long the exchange asks us to wait
    └── PermanentError      trying again changes nothing: bad input, bad setting
        ├── RefusedAddressError this address is not served, for minutes or for good
        ├── RejectedInputError  a file or row that is not what it claims to be
        └── UnknownSymbolError  the exchange has no such symbol

Every message names what went wrong, where (file and line, host, symbol, variable) and what
would be right. Importable from every room.
"""

from __future__ import annotations


class CandelabraError(Exception):
    """Base of all errors raised on purpose."""


class TransientError(CandelabraError):
    """A retry may succeed."""


class RateLimitedError(TransientError):
    """The exchange asked for silence.

    Args:
        message: what was asked and of whom.
        retry_after_s: seconds until the next request is welcome.
        banned: the exchange answered 418 rather than 429.
    """

    def __init__(self, message: str, *, retry_after_s: float, banned: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.banned = banned


class PermanentError(CandelabraError):
    """A retry cannot succeed; somebody has to change something first."""


class RefusedAddressError(PermanentError):
    """A firewall, a proxy or a rule about regions refuses this address, whatever is asked.

    Asking on does not help. One who can wait for hours may ask again after some minutes: a
    firewall lets an address go that has been quiet.
    """


class RejectedInputError(PermanentError):
    """A file as a whole cannot be used (corrupt archive, wrong checksum, unknown columns)."""


class UnknownSymbolError(PermanentError):
    """The exchange has no such symbol."""
