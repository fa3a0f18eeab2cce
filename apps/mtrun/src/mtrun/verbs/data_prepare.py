"""`mtrun data prepare`."""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from mt_core.dataset import SPLITS, Dataset, IncompleteError
from mt_core.errors import ConfigError, DataError

from .. import terminal
from ..archives import Watch, unpack
from ..data_config import PrepareConfig
from ..job import chosen
from ..results import Result

log = logging.getLogger(__name__)

DEEPEST, MOST_FOLDERS = 4, 1000  # folders around a data set in an archive; folders that are looked into


def prepare(config: PrepareConfig, plain: Mapping[str, Any]) -> Result:
    """Unpack archives into a folder that the data set can open; without archives, say where to get them."""
    dataset: Dataset = chosen("datasets", config.dataset)
    name, given = config.dataset["name"], getattr(dataset, "root", None)
    if given is None:
        raise ConfigError(f"data set {name} has no files, so there is nothing to prepare; mtrun data show {name}")
    if not config.archives and not given:
        return _told(dataset, name)
    if not given:
        raise ConfigError("dataset.root is needed: the folder that is to be made; give dataset.root=DIR")
    root = Path(given).expanduser()
    if _opens(dataset, root):
        return _ready(dataset, name, root, f"{root} is there already, and {name} can open it; nothing was done")
    if not config.archives:
        raise ConfigError(
            f"{name} cannot open dataset.root={root}, and archives is empty; give archives=[FILE,...]. "
            f"mtrun data prepare {name} says where to get them"
        )
    if os.path.lexists(root) and not (root.is_dir() and not any(root.iterdir())):
        raise ConfigError(f"dataset.root={root} is there already, but {name} cannot open it; choose a new folder")
    _make(dataset, name, root, config)
    return _ready(dataset, name, root, f"{name} is in {root}")


def _make(dataset: Dataset, name: str, root: Path, config: PrepareConfig) -> None:
    """Unpack beside `root`, find the data set in it, and put that in its place; nothing is left if that fails."""
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=root.parent, prefix=f".{root.name}."))
    except OSError as error:
        raise ConfigError(
            f"dataset.root={root}: no folder can be made there ({error.strerror}); choose another place"
        ) from error
    try:
        for archive in map(Path, config.archives):
            with _watching(archive) as watch:
                count = unpack(archive.expanduser(), scratch, config.max_ratio, watch)
            log.info("%s: %d files", archive, count)
        found = _find(dataset, name, scratch)
        if left := [path.name for path in found.parent.iterdir() if path != found] if found != scratch else []:
            log.info("left out, because it is beside the data set and no part of it: %s", ", ".join(sorted(left)[:8]))
        os.sync()
        found.chmod(0o755)
        found.replace(root)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _find(dataset: Dataset, name: str, scratch: Path) -> Path:
    """The folder that the data set can open: archives often hold one around it."""
    found = next((folder for folder in _folders(scratch) if _opens(dataset, folder)), None)
    if found is not None:
        return found
    holds = ", ".join(sorted(path.name for path in scratch.iterdir())[:8]) or "nothing"
    try:
        _at(dataset, scratch).split(SPLITS[0], ())
        reason = ""
    except DataError as error:
        reason = str(error).replace(f"{scratch}/", "").replace(str(scratch), "the archive")
    raise DataError(f"no folder of what was unpacked is a data set that {name} can open (it holds {holds}): {reason}")


def _folders(top: Path) -> Iterator[Path]:
    """The folder and those in it, the outer ones first."""

    def walk() -> Iterator[Path]:
        level = [top]
        for _ in range(DEEPEST):
            yield from level
            level = [inner for folder in level for inner in sorted(folder.iterdir()) if inner.is_dir()][:MOST_FOLDERS]

    return islice(walk(), MOST_FOLDERS)


def _opens(dataset: Dataset, root: Path) -> bool:
    """Whether the data set finds a split there, whole or not."""
    return any(_reason(dataset, root, split, ()) is None for split in SPLITS) if root.is_dir() else False


def _reason(dataset: Dataset, root: Path, split: str, tasks: tuple[Any, ...]) -> str | None:
    """Why a split cannot be opened; None if it can."""
    try:
        _at(dataset, root).split(split, tasks)
    except IncompleteError as error:
        return str(error) if tasks else None
    except DataError as error:
        return str(error)
    return None


def _at(dataset: Dataset, root: Path) -> Dataset:
    return dataclasses.replace(dataset, root=str(root))  # type: ignore[call-arg]  # looked for above


def _ready(dataset: Dataset, name: str, root: Path, first: str) -> Result:
    """What is there, task by task."""
    reasons = {
        f"{task.name} ({split})": _reason(dataset, root, split, (task,))
        for task in dataset.tasks().values()
        for split in SPLITS
    }
    missing = {what: reason for what, reason in reasons.items() if reason is not None}
    lines = [first, *(f"not usable yet: {what}: {reason}" for what, reason in missing.items())]
    lines.append(f"look at every file: mtrun data verify {name} dataset.root={root}")
    return Result({"root": str(root), "missing": missing}, lambda console: _print(console, lines))


def _told(dataset: Dataset, name: str) -> Result:
    """Where the files can be had."""
    lines = [f"{name} is not downloaded by mtrun: get it from those who publish it, under their terms."]
    for source in dataset.sources:
        lines += ["", f"files: {', '.join(source.files)}", f"from: {source.url}", f"terms: {source.terms}"]
    if not dataset.sources:
        lines += ["", "Its author names no source."]
    lines += ["", f"then: mtrun data prepare {name} archives=[FILE,...] dataset.root=DIR"]
    value = {"dataset": name, "sources": [dataclasses.asdict(source) for source in dataset.sources]}
    return Result(value, lambda console: _print(console, lines))


def _print(console: Any, lines: list[str]) -> None:
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


@contextmanager
def _watching(archive: Path) -> Iterator[Watch]:
    """A bar on a terminal, nothing elsewhere."""
    if not terminal.stderr().is_terminal:
        yield lambda _: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), DownloadColumn(), TimeRemainingColumn())
    total = archive.stat().st_size if archive.is_file() else None
    with Progress(*columns, console=terminal.stderr()) as bar:
        row = bar.add_task(f"unpacking {archive.name}", total=total)
        yield lambda done: bar.update(row, completed=done)
