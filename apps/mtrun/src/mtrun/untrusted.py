"""YAML that anybody may have written. Nothing in it may run, point elsewhere, or grow when it is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.plugins.config_source import ConfigResult
from omegaconf import OmegaConf

from mt_core.errors import ConfigError

LARGEST = 1 << 20  # bytes; a configuration has a few kilobytes
MOST = 100_000  # values, each counted as often as aliases repeat it


def check_yaml(path: Path) -> None:
    """Look at a file of YAML without building what it describes.

    Raises:
        ValueError: saying what is wrong with it.
    """
    try:
        if not path.is_file():  # a pipe would be waited for
            raise ValueError("it is missing, or no file")
        if (size := path.stat().st_size) > LARGEST:
            raise ValueError(f"{size} bytes; a configuration has a few kilobytes")
        node = yaml.compose(path.read_bytes().decode(), Loader=yaml.SafeLoader)
        _count(node, {}, set())
    except (OSError, yaml.YAMLError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from error


class CheckedFiles(FileConfigSource):
    """Hydra's source of files (`--config-dir`), which lets no file speak to Hydra itself: there it could run code."""

    def load_config(self, config_path: str) -> ConfigResult:
        path = Path(self.path) / self._normalize_file_name(config_path)
        try:
            check_yaml(path)
            found = super().load_config(config_path)
        except (ValueError, yaml.YAMLError) as error:
            raise ConfigError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
        package = str((found.header or {}).get("package"))
        bad = next(_forbidden({package: OmegaConf.to_container(found.config)}), None)
        if bad is not None:
            raise ConfigError(
                f"{path} is refused: {bad!r} could run code; a configuration sets options of mtrun and of plugins"
            )
        return found


def _count(node: Any, known: dict[int, int], around: set[int]) -> int:
    """How many values a node stands for when its aliases are written out."""
    if id(node) in around:
        raise ValueError("a value contains itself")
    if id(node) not in known:
        pairs = node.value if isinstance(node, yaml.CollectionNode) else ()
        inner = [part for pair in pairs for part in (pair if isinstance(pair, tuple) else (pair,))]
        known[id(node)] = 1 + sum(_count(part, known, around | {id(node)}) for part in inner)
    if known[id(node)] > MOST:
        raise ValueError(f"its aliases stand for more than {MOST} values")
    return known[id(node)]


def _forbidden(value: Any, key: str = "") -> Iterator[str]:
    """What Hydra would act upon: its own node and groups, and `_target_` anywhere."""
    if isinstance(value, dict):
        for name, item in value.items():
            if name == "_target_" or "hydra" in str(name):
                yield str(name)
            yield from _forbidden(item, str(name))
    elif isinstance(value, list):
        for item in value:
            yield from _forbidden(item, key)
    elif key == "defaults" and "hydra" in str(value):
        yield str(value)
