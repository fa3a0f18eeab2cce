"""The help: printed without importing torch, Hydra or any plugin."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import get_type_hints

from mt_core.discovery import registry

from . import config, verbs
from .docs import attributes, options_of
from .own import OWN

WIDTH = 110


def overview() -> str:
    """`mtrun --help`."""
    examples = [verb.examples[0] for verb in verbs.VERBS.values()]
    return "\n".join(
        [
            "usage: mtrun [VERB] [GROUP=NAME ...] [KEY=VALUE ...] [--json]",
            "",
            "verbs:",
            *(f"  {name:<9} {verb.summary}" for name, verb in verbs.VERBS.items()),
            "",
            "groups and what is installed:",
            *_groups(config.TrainConfig),
            "",
            "examples:",
            *(f"  {example}" for example in examples),
            "",
            "flags: --json (one JSON object on stdout), --cfg job (show the configuration), --multirun (sweep), --info",
            "mtrun VERB --help lists the options of a verb, mtrun plugins show NAME those of a plugin.",
        ]
    )


def of(name: str) -> str:
    """`mtrun VERB --help`."""
    verb = verbs.VERBS[name]
    lines = [f"mtrun {name}: {verb.summary}", "", "examples:", *(f"  {example}" for example in verb.examples)]
    if verb.usage:
        lines[2:2] = [f"usage: {verb.usage}", ""]
    if verb.options:
        lines += ["", "options, with their defaults:", *_options(getattr(config, verb.options))]
    if verb.config:
        cls = getattr(config, verb.config)
        lines += ["", "groups (options: mtrun plugins show NAME):", *_groups(cls)] if cls.groups else []
        lines += ["", "options, with their defaults:", *_options(cls)]
    return "\n".join(lines)


def shipped(group: str) -> list[str]:
    """The files of a group that mtrun brings, as the command line takes them."""
    return sorted(_yaml_files(files("mtrun.conf").joinpath(group), ""))


def _yaml_files(folder: Traversable, prefix: str) -> Iterator[str]:
    for item in folder.iterdir():
        if item.is_dir():
            yield from _yaml_files(item, f"{prefix}{item.name}/")
        elif item.name.endswith(".yaml"):
            yield prefix + item.name.removesuffix(".yaml")


def _groups(cls: type[config.Config]) -> Iterator[str]:
    for group, usual in cls.groups.items():
        names = OWN[group] if group in OWN else registry(f"{group}s")
        default = f" (default: {usual})" if usual else ""
        yield from _wrapped(f"{group}=", f"{', '.join(names) or 'none installed'}{default}")
    for group in cls.files:
        yield from _wrapped(f"{group}=", ", ".join(shipped(group)))


def _options(cls: type, prefix: str = "") -> Iterator[str]:
    """Every option with its default and its documentation; nested ones below, with their path."""
    hints, nested = get_type_hints(cls), []
    helps = attributes(cls)
    for option in options_of(cls):
        if dataclasses.is_dataclass(kind := hints[option.name]):
            nested.append((option.name, kind))
        elif option.default != config.CHOSEN:
            yield from _wrapped(f"{prefix}{option.name}={option.shown}", helps.get(option.name, ""))
    for name, kind in nested:
        yield ""
        yield from _options(kind, f"{prefix}{name}.")  # type: ignore[arg-type]


def _wrapped(head: str, text: str) -> Iterator[str]:
    lines = textwrap.wrap(text, WIDTH - 34) or [""]
    first = f"  {head:<32}"
    if len(first) > 34:
        yield first
        first = " " * 34
    yield first + lines[0]
    yield from (" " * 34 + line for line in lines[1:])
