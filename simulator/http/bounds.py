"""Bounds of what a fault may be told to do; each error names the value and what is allowed."""

_LONGEST_WAIT_S = 600.0


def at_least(least: int, **values: int) -> None:
    """Refuses whole numbers below a bound."""
    for name, value in values.items():
        if value < least:
            raise ValueError(f"{name} is {value}; it must be at least {least}")


def within(lowest: float, highest: float, **values: float) -> None:
    """Refuses numbers beyond bounds, which are allowed themselves."""
    for name, value in values.items():
        if not lowest <= value <= highest:
            raise ValueError(f"{name} is {value}; it must lie in {lowest} to {highest}")


def a_part(keep_percent: int) -> None:
    """Refuses what is no part of a body."""
    within(0, 99, keep_percent=keep_percent)


def an_error(status: int) -> None:
    """Refuses what is no error status of HTTP."""
    within(400, 599, status=status)


def a_wait(seconds: float) -> None:
    """Refuses waits that are longer than a client waits."""
    within(0, _LONGEST_WAIT_S, seconds=seconds)
