"""The options of a dataclass with their documentation, read from its docstring's `Attributes:`."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any


@dataclass(frozen=True)
class Option:
    """A field of an options dataclass.

    Attributes:
        type: as it is written in the code.
        default: its value, or None where it has none.
        shown: the default as the command line takes it.
        help: one paragraph.
    """

    name: str
    type: str
    default: Any
    shown: str
    help: str


def options_of(cls: type) -> list[Option]:
    """The options of a dataclass, in order."""
    helps = attributes(cls)
    return [_option(field, helps.get(field.name, "")) for field in dataclasses.fields(cls) if field.init]


def attributes(cls: type) -> dict[str, str]:
    """What the docstrings of a class and its bases say under `Attributes:`, by name."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        _, _, section = inspect.cleandoc(base.__dict__.get("__doc__") or "").partition("Attributes:\n")
        found |= dict(_entries(section))
    return found


def shown(value: Any) -> str:
    """A value as the command line takes it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(shown, value))}]"
    return '""' if value == "" else str(value)


def _entries(section: str) -> Iterator[tuple[str, str]]:
    """`name: text` or `name, name: text`, indented once; what is indented further continues it."""
    names: list[str] = []
    text: list[str] = []
    for line in [*section.splitlines(), "    end: "]:
        if start := re.match(r" {4}(\w+(?:, \w+)*): ?(.*)", line):
            yield from ((name, " ".join(text)) for name in names)
            names, text = start[1].split(", "), [start[2]]
        elif line.startswith("     "):
            text.append(line.strip())
        elif line.strip():  # the section is over
            yield from ((name, " ".join(text)) for name in names)
            return


def _option(field: dataclasses.Field[Any], text: str) -> Option:
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    given = default is not dataclasses.MISSING
    kind = field.type if isinstance(field.type, str) else getattr(field.type, "__name__", str(field.type))
    return Option(field.name, kind, default if given else None, shown(default) if given else "(needed)", text)
