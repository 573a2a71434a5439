"""Read one item ahead in a thread: decompression and parsing overlap."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def read_ahead(items: Generator[Item, None, None]) -> Generator[Item, None, None]:
    """Yield the same items; the next one is made while the last one is used.

    Errors of the source are raised in their place. Closing this closes ``items``.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as pool:
        try:
            coming = pool.submit(next, items, None)
            while (item := coming.result()) is not None:
                coming = pool.submit(next, items, None)
                yield item
        finally:
            # after the running item, because a running generator cannot be closed
            pool.submit(items.close).result()
