"""What storage moved and retried in this process, told to whoever listens. Knows no metrics system."""

from collections.abc import Callable
from typing import Literal

Kind = Literal["read_bytes", "written_bytes", "retries"]

_listeners: list[Callable[[Kind, float], None]] = []


def listen(listener: Callable[[Kind, float], None]) -> None:
    """Call `listener(kind, amount)` from now on, from whatever thread moves bytes; it must be quick."""
    if listener not in _listeners:
        _listeners.append(listener)


def unlisten(listener: Callable[[Kind, float], None]) -> None:
    """Stop calling a listener."""
    _listeners.remove(listener)


def count(kind: Kind, amount: float = 1.0) -> None:
    """Tell the listeners."""
    for listener in tuple(_listeners):
        listener(kind, amount)
