"""What a command gives back: one value for machines, one view for people."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Result:
    """The outcome of a command.

    Attributes:
        value: what `--json` prints.
        show: prints it for a person.
        exit_code: what the command ends with; 0 unless the result itself is that something is wrong.
    """

    value: dict[str, Any]
    show: Callable[[Console], None]
    exit_code: int = 0
