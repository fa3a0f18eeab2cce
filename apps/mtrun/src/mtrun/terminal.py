"""What a person sees: results on stdout, everything else on stderr."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console

UNLIMITED = 120  # columns where there is no terminal

_stderr: Console | None = None


def console(stream: TextIO) -> Console:
    """A console on a stream, wide enough for tables where it is no terminal."""
    return Console(file=stream, width=None if stream.isatty() else UNLIMITED)


def stderr() -> Console:
    """The console that log lines and progress share, so that they do not overwrite each other."""
    return _stderr or console(sys.stderr)


class _Handler(logging.Handler):
    """Log records through the console; the level is named from warnings on."""

    def emit(self, record: logging.LogRecord) -> None:
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        stderr().print(f"{level}{self.format(record)}", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def logging_to_stderr() -> Iterator[None]:
    """Within, log records and Python's warnings go to stderr, a line each."""
    global _stderr
    root, show = logging.getLogger(), warnings.showwarning
    handlers, level = list(root.handlers), root.level

    def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
        logging.getLogger("mtrun").warning("%s", message)

    _stderr = console(sys.stderr)
    root.addHandler(_Handler())
    root.setLevel(logging.INFO)
    warnings.showwarning = show_warning
    try:
        yield
    finally:
        warnings.showwarning = show
        root.handlers[:] = handlers  # without those that Hydra adds when it prints
        root.setLevel(level)
        _stderr = None
