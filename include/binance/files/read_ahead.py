"""Reading one item ahead in a thread of its own: decompressing and parsing overlap."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def read_ahead(items: Generator[Item, None, None]) -> Generator[Item, None, None]:
    """The same items; the next one is made while the last one is used.

    What making an item raises is raised when it would have come. Closing this closes ``items``.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as pool:
        try:
            coming = pool.submit(next, items, None)
            while (item := coming.result()) is not None:
                coming = pool.submit(next, items, None)
                yield item
        finally:
            # behind the one that is being made, since a running generator cannot be closed
            pool.submit(items.close).result()
