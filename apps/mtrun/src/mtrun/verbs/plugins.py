"""`mtrun plugins`: what is installed, and the options of one of them."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence
from difflib import get_close_matches
from enum import Enum
from typing import Any

from mt_core.discovery import KINDS, Registry, registry
from mt_core.errors import ConfigError

from ..docs import Option, options_of
from ..own import OWN
from ..results import Result

USAGE = "mtrun plugins list | show NAME | show KIND NAME"


def plugins(words: Sequence[str]) -> Result:
    """Run `list` (the default) or `show`."""
    if list(words) in ([], ["list"]):
        return _list()
    if words[0] == "show" and len(words) in (2, 3):
        return _show(*_find(*words[1:]))
    raise ConfigError(f"mtrun plugins {' '.join(words)}: expected {USAGE}")


def registries() -> dict[str, Registry]:
    """Everything that can be chosen, by kind."""
    return {**{kind: registry(kind) for kind in KINDS}, **{f"{group}s": names for group, names in OWN.items()}}


def _list() -> Result:
    """Names only: no plugin is imported."""
    found = {kind: {name: names.source(name) for name in names} for kind, names in registries().items()}

    def show(console: Any) -> None:
        from rich.table import Table

        table = Table("kind", "name", "from")
        for kind, names in found.items():
            for name, source in names.items():
                table.add_row(kind, name, source)
            table.add_section()
        console.print(table)

    return Result(found, show)


def _find(*words: str) -> tuple[str, str, Registry]:
    """The kind, name and registry of a plugin; the kind may be left out where one name is enough."""
    every, name = registries(), words[-1]
    if len(words) == 2:
        kind = words[0] if words[0].endswith("s") else f"{words[0]}s"
        if kind not in every:
            raise ConfigError(f"unknown kind {words[0]!r}; expected one of {', '.join(every)}")
        if name not in every[kind]:
            raise ConfigError(every[kind].missing(name))
        return kind, name, every[kind]
    homes = [kind for kind, names in every.items() if name in names]
    if len(homes) > 1:
        raise ConfigError(f"{name!r} is in {' and '.join(homes)}; say which: mtrun plugins show {homes[0][:-1]} {name}")
    if not homes:
        guess = get_close_matches(name, [n for names in every.values() for n in names], n=1)
        hint = f"did you mean {guess[0]!r}? " if guess else ""
        raise ConfigError(f"no plugin {name!r} is installed; {hint}mtrun plugins list shows what is")
    return homes[0], name, every[homes[0]]


def _show(kind: str, name: str, names: Registry) -> Result:
    cls = names[name]
    options = options_of(cls) if dataclasses.is_dataclass(cls) else []
    value = {
        "kind": kind,
        "name": name,
        "from": names.source(name),
        "class": f"{cls.__module__}:{cls.__qualname__}",
        "summary": inspect.cleandoc(cls.__doc__ or "").partition("\n\n")[0],
        "options": {o.name: {"type": o.type, "default": _plain(o.default), "help": o.help} for o in options},
    }
    return Result(value, lambda console: _print(console, value, kind[:-1], options))


def _print(console: Any, value: dict[str, Any], kind: str, options: Sequence[Option]) -> None:
    from rich.markup import escape
    from rich.table import Table

    console.print(f"{kind}={value['name']}, from {value['from']} ({value['class']})", highlight=False)
    console.print(value["summary"], markup=False, highlight=False)
    if options:
        table = Table("option", "type", "default", "what it does")
        for option in options:
            table.add_row(f"{kind}.{option.name}", *map(escape, (option.type, option.shown, option.help)))
        console.print(table)


def _plain(default: Any) -> Any:
    return default.name if isinstance(default, Enum) else list(default) if isinstance(default, tuple) else default
