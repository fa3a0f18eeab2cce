"""SIGTERM and SIGINT become exceptions, except where something must be finished first."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(BaseException):
    """SIGTERM arrived. Like KeyboardInterrupt no `Exception`, so that nothing swallows it."""

    exit_code = 128 + signal.SIGTERM


_NUMBERS = (signal.SIGTERM, signal.SIGINT)
_depth = 0  # of shields around what is running
_pending: BaseException | None = None
_since = float("-inf")  # when it arrived
_repeats = 0.0  # seconds in which a signal that arrives again is the same one


@contextmanager
def raising(repeats: float = 0.0) -> Iterator[None]:
    """Within, SIGTERM raises `Terminated` and SIGINT KeyboardInterrupt. Only the main thread can do this.

    Args:
        repeats: seconds in which a second signal is no second wish: some launchers pass on what the terminal has sent
            to the whole group already.
    """
    global _repeats
    _repeats = repeats
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _handle) for number in _NUMBERS}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _NUMBERS)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def blocked() -> Iterator[None]:
    """Within, signals wait; they wait in a process that is started here, too, until it is `raising`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _NUMBERS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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


def die_with(parent: int) -> None:
    """Let the kernel kill this process when its parent is gone, however that ends; Linux only."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            sys.exit(1)


def pending() -> BaseException | None:
    """The signal that has arrived inside of a shield, if one has; it is taken out, and whoever asks deals with it."""
    global _pending
    found, _pending = _pending, None
    return found


def _handle(number: int, frame: FrameType | None) -> None:
    global _pending, _since
    if time.monotonic() - _since < _repeats:
        return
    _since = time.monotonic()
    error = Terminated("terminated") if number == signal.SIGTERM else KeyboardInterrupt("interrupted")
    if _depth and _pending is None:
        _pending = error
    else:
        raise error
