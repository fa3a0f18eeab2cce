"""A disk that is full, or will not be written to for another reason, ends a run with one message."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from mt_core.errors import CheckpointError


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Within, something is written below `folder`.

    Raises:
        CheckpointError: if it cannot be.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        if isinstance(error, SafetensorError) and "I/O error" not in str(error):
            raise
        raise CheckpointError(
            f"{folder} cannot be written: {_reason(error)}; make room, or mend it. What was saved before is whole, "
            f"and mtrun resume={folder} goes on from the newest state"
        ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    found = re.search(r"I/O error: (.*?) \(os error", str(error))
    return found[1] if found else str(error)
