"""One copy of what several users have in common, kept for as long as one of them holds it.

    key ─there?→ the value that others hold        not there: made, and held by weak reference

Values are frozen. A table of values keeps nothing alive: what nobody holds any longer is freed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

V = TypeVar("V")


class Interned(Generic[V]):
    """Values by key; several threads may ask."""

    def __init__(self) -> None:
        self._values: WeakValueDictionary[Hashable, V] = WeakValueDictionary()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], V]) -> V:
        """The value under this key; made where nobody holds one.

        Of two threads that make it at once both get the one that was ready first.
        """
        with self._lock:
            value = self._values.get(key)
        if value is not None:
            return value
        made = make()
        with self._lock:
            return self._values.setdefault(key, made)

    def __len__(self) -> int:
        return len(self._values)
