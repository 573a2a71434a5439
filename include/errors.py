"""Errors that say whether a retry can help.

::

    CandelabraError
    ├── TransientError      retry later: network, 5xx, 429, database away
    │   └── RateLimitedError    carries the wait that the exchange demands
    └── PermanentError      a retry changes nothing
        ├── RefusedAddressError this address is refused, for minutes or for good
        ├── RejectedInputError  a file or row is not what it claims to be
        └── WrongValueError     an option, argument or setting cannot be right
            └── UnknownSymbolError  the exchange has no such symbol

Every message names what went wrong, where (file and line, host, symbol, variable) and what would be
right. Importable from every room.
"""

from __future__ import annotations


class CandelabraError(Exception):
    """Base of all errors raised on purpose."""


class TransientError(CandelabraError):
    """A retry may succeed."""


class RateLimitedError(TransientError):
    """The exchange demands a pause.

    Args:
        message: the request and the host.
        retry_after_s: seconds until the next request is allowed.
        banned: the exchange answered 418 instead of 429.
    """

    def __init__(self, message: str, *, retry_after_s: float, banned: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.banned = banned


class PermanentError(CandelabraError):
    """A retry cannot succeed; somebody has to change something first."""


class RefusedAddressError(PermanentError):
    """A firewall, a proxy or a regional rule refuses this address, whatever the request.

    Immediate retries do not help. A caller that can wait for hours may retry after some minutes: a
    firewall releases an address that has been quiet.
    """


class RejectedInputError(PermanentError):
    """A file as a whole cannot be used (corrupt archive, wrong checksum, unknown columns)."""


class WrongValueError(PermanentError):
    """An option, argument or setting has a value that cannot be right; commands end with code 2."""


class UnknownSymbolError(WrongValueError):
    """The exchange has no such symbol."""
