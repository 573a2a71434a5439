"""A bounded cache that threads may share."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

_LOCKS = 16

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class BoundedCache(Generic[Key, Value]):
    """Keeps the most recently used values, at most `size`. Safe between threads.

    Args:
        size: maximum number of values, or their maximum total weight. The newest value always
            stays.
        weigh: weight of a value, for example its bytes; 1 if None.
        makes_once: threads that need the same value wait for the first; otherwise two threads may
            compute it twice.
    """

    def __init__(
        self,
        size: int,
        *,
        weigh: Callable[[Value], int] | None = None,
        makes_once: bool = False,
    ) -> None:
        self._size = size
        self._weigh = weigh or (lambda _value: 1)
        self._weight = 0
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._lock = threading.Lock()
        self._making = [threading.RLock() for _ in range(_LOCKS)] if makes_once else None

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """Return the value of `key`, computing it if it is missing."""
        found = self._found(key)
        if found is not None:
            return found[0]
        if self._making is None:
            return self._kept(key, make())
        with self._making[hash(key) % _LOCKS]:
            found = self._found(key)
            return found[0] if found is not None else self._kept(key, make())

    def _found(self, key: Key) -> tuple[Value] | None:
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return (self._values[key],)

    def _kept(self, key: Key, value: Value) -> Value:
        with self._lock:
            if key in self._values:
                self._weight -= self._weigh(self._values.pop(key))
            self._values[key] = value
            self._weight += self._weigh(value)
            while self._weight > self._size and len(self._values) > 1:
                _, oldest = self._values.popitem(last=False)
                self._weight -= self._weigh(oldest)
        return value

    def __contains__(self, key: Key) -> bool:
        with self._lock:
            return key in self._values
