"""A small YAML file that anybody may have written: plain values, nothing that runs, points elsewhere or grows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from mt_core.errors import DataError

from .files import reading

LARGEST = 1 << 18  # bytes; a description has a few hundred


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML mapping.

    Raises:
        DataError: if it is missing, large, no YAML of plain values, or no mapping; if it has an alias, which can make
            a few lines stand for any amount of values; or if a key stands twice, of which one would be lost.
    """
    with reading(path, "YAML of plain values"):
        if path.stat().st_size > LARGEST:
            raise DataError(f"{path}: {path.stat().st_size} bytes; expected a description of at most {LARGEST}")
        text = path.read_text(encoding="utf-8-sig")
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise DataError(f"{path}: line {event.start_mark.line + 1}: an anchor or alias; write the value out")
        _refuse_doubles(path, yaml.compose(text, Loader=yaml.SafeLoader))
        values = yaml.safe_load(text)
    if not isinstance(values, dict):
        raise DataError(f"{path}: holds {type(values).__name__}; expected keys with values, `tasks:` among them")
    return values


def _refuse_doubles(path: Path, node: Any) -> None:
    if isinstance(node, yaml.SequenceNode):
        for part in node.value:
            _refuse_doubles(path, part)
    elif isinstance(node, yaml.MappingNode):
        seen: set[Any] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise DataError(f"{path}: line {key.start_mark.line + 1}: {key.value!r} stands twice; remove one")
                seen.add(key.value)
            _refuse_doubles(path, value)
