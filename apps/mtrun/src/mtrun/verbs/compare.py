"""`mtrun compare`: runs beside each other and beside published rows, on the terminal and as a report."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mt_core.errors import ConfigError
from mt_core.options import from_dict

from ..comparison import FILES, compare_runs, text, write
from ..config import CompareOptions
from ..results import Result

log = logging.getLogger(__name__)

OUTPUT = "comparison"
FIELDS = {option.name: option for option in dataclasses.fields(CompareOptions)}


def compare(words: Sequence[str]) -> Result:
    """Compare the runs in the folders that the words name."""
    folders, options = parse(words)
    output = Path(OUTPUT if options.output is None else options.output)
    if output.is_file():
        raise ConfigError(f"output={output} is a file; expected a folder")
    found = compare_runs([Path(folder) for folder in folders], options.paper, options.baseline, options.weights.name)
    for number, table in enumerate(found.tables, 1):
        if table.apart:
            log.warning("table %d is not to be compared with table 1: %s", number, table.apart)
    if not options.dry_run:
        write(found, output, options.pictures, options.title)
    files = {} if options.dry_run else {name: str(output / name) for name in FILES}

    def show(console: Any) -> None:
        text.show(found, console)
        if files:
            console.print(f"the report is {files[FILES[0]]}", soft_wrap=True, highlight=False, markup=False)

    return Result({**text.to_json(found), "files": files}, show)


def parse(words: Sequence[str]) -> tuple[list[str], CompareOptions]:
    """The folders and the options among the words: NAME=VALUE, --NAME=VALUE or --NAME VALUE; all else is a folder.

    Raises:
        ConfigError: if an option is unknown, has no value, or one that cannot be.
    """
    folders: list[str] = []
    values: dict[str, Any] = {}
    for name, value in _pairs(iter(words)):
        if name is None:
            folders.append(value)
        elif isinstance(FIELDS[name].default_factory, type):
            items = [value] if Path(value).exists() else value.strip("[]").split(",")  # a folder may have commas
            values.setdefault(name, []).extend(item for item in items if item)
        else:
            values[name] = _typed(name, value)
    return folders, from_dict(CompareOptions, values, "compare")


def _pairs(words: Iterator[str]) -> Iterator[tuple[str | None, str]]:
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        if name in FIELDS and equals:
            yield name, value
        elif not word.startswith("-"):
            yield None, word
        elif name not in FIELDS:
            guess = get_close_matches(name, FIELDS, n=1)
            hint = f"did you mean --{guess[0]}? " if guess else ""
            raise ConfigError(f"unknown option {word!r}; {hint}mtrun compare --help lists them")
        elif (following := next(words, None)) is None:
            raise ConfigError(f"{word} needs a value, as in {word}=VALUE")
        else:
            yield name, following


def _typed(name: str, value: str) -> Any:
    if FIELDS[name].default is False:
        if value not in ("true", "false"):
            raise ConfigError(f"{name}={value}: expected true or false")
        return value == "true"
    if name == "pictures":
        if not value.isdecimal():
            raise ConfigError(f"pictures={value}: expected a whole number from 0 on")
        return int(value)
    return None if value == "null" else value
