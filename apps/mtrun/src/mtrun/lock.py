"""One process at a time writes into a run's folder. A lock ends with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mt_core.errors import ConfigError

from .writing import writing

LOCK = "lock"

_held: set[int] = set()  # file descriptors, which processes forked from this one must not keep open


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Within, the run in `folder` belongs to this process.

    Raises:
        ConfigError: if it belongs to another that is alive.
        CheckpointError: if nothing can be written there.
    """
    with writing(folder):
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        with writing(folder):
            _take(descriptor, folder)
            _held.add(descriptor)
            os.truncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        _held.discard(descriptor)
        os.close(descriptor)


def _take(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
        raise ConfigError(
            f"{folder} is being trained by {owner}; wait until that run ends, or stop it, and resume then"
        ) from error


def _let_go() -> None:
    """A worker that outlives the run, for however short a time, does not hold its lock."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)
