"""SIGTERM and SIGINT become exceptions, except where something must be finished first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(BaseException):
    """SIGTERM arrived. Like KeyboardInterrupt no `Exception`, so that nothing swallows it."""

    exit_code = 128 + signal.SIGTERM


_depth = 0  # of shields around what is running
_pending: BaseException | None = None


@contextmanager
def raising() -> Iterator[None]:
    """Within, SIGTERM raises `Terminated` and SIGINT KeyboardInterrupt. Only the main thread can do this."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def shielded() -> Iterator[None]:
    """Within, a first signal waits until the block is done; a second one interrupts it."""
    global _depth, _pending
    outside = _depth
    _depth += 1
    try:
        yield
    finally:
        _depth = outside
        waiting, _pending = (_pending, None) if _depth == 0 else (None, _pending)
    if waiting is not None:
        raise waiting


@contextmanager
def unshielded() -> Iterator[None]:
    """Within, inside of a shield, a signal interrupts at once; what the shield puts in order afterwards is safe."""
    global _depth, _pending
    outside, _depth = _depth, 0
    try:
        waiting, _pending = _pending, None
        if waiting is not None:
            raise waiting
        yield
    finally:
        _depth = outside


def _handle(number: int, frame: FrameType | None) -> None:
    global _pending
    error = Terminated("terminated") if number == signal.SIGTERM else KeyboardInterrupt("interrupted")
    if _depth and _pending is None:
        _pending = error
    else:
        raise error
