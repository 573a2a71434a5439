"""Read one item ahead in a thread, so that decompression and parsing overlap."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def read_ahead(items: Generator[Item, None, None]) -> Generator[Item, None, None]:
    """Yield the same items; the next one is computed while the current one is used.

    Errors of the source are raised at the item that failed. Closing this generator closes
    ``items``.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as pool:
        try:
            coming = pool.submit(next, items, None)
            while (item := coming.result()) is not None:
                coming = pool.submit(next, items, None)
                yield item
        finally:
            # In the pool, after the running item: a running generator cannot be closed.
            pool.submit(items.close).result()
