"""What a layout is: which files of a folder belong to a picture, which of them it may be without, which are there."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mt_core.dataset import SPLITS
from mt_core.errors import ConfigError
from mt_core.task import Task

from .files import read_picture, reading

Alternatives = tuple[str, ...]  # file patterns, "normals/*.npy"; the first that exists for a picture is read


@dataclass(frozen=True)
class Annotation:
    """How the annotations of one task are stored.

    Attributes:
        files: what one picture's annotation needs: for each entry, one file.
        read: function of the paths of those files -> values shaped and typed as the task's label, or None where
            the picture has no such annotation.
        note: for messages about values, where a file holds others than the label.
        partial: whether a picture without these files is one without this annotation, and no error; but some picture
            of a split has to have them, and every one that a `Promise` names.
    """

    files: tuple[Alternatives, ...]
    read: Callable[..., NDArray[Any] | None]
    note: str = ""
    partial: bool = False


@dataclass(frozen=True)
class Promise:
    """What a list of the data set says: which pictures have a partial annotation.

    Attributes:
        listed: the list, for messages.
        names: of the pictures.
        wrong: what is wrong with the list itself.
    """

    listed: str
    names: frozenset[str]
    wrong: tuple[str, ...] = ()


NO_PROMISES: Mapping[str, Promise] = {}


@dataclass(frozen=True)
class Layout:
    """Where a data set keeps its files, as patterns under its root.

    Attributes:
        name: what the layout is called.
        origin: where its files come from, in words.
        lists: what names the pictures: the split lists, with `*` for the split, or the pictures themselves.
        pictures: the pictures, with `*` for the name of one.
        annotations: by task.
        read: function of a picture's path -> (3, H, W) uint8.
    """

    name: str
    origin: str
    lists: str
    pictures: str
    annotations: Mapping[str, Annotation]
    read: Callable[[Path], NDArray[np.uint8]] = read_picture

    def needs(self, task: str) -> tuple[Alternatives, ...]:
        """The files of one picture that `task` is trained on."""
        return ((self.pictures,), *self.annotations[task].files)

    def describe(self, above: str = "") -> str:
        """What is where, for messages; `above` is what stands between the root and the patterns."""
        groups = [group for task in self.annotations for group in self.needs(task)]
        patterns = dict.fromkeys([self.lists, *(pattern for group in groups for pattern in group)])
        return f"the layout {self.name}: {', '.join(above + pattern for pattern in patterns)}. {self.origin}"


def expect_choice(layout: Layout, split: str, tasks: Sequence[Task]) -> None:
    """Refuse a split or a task that the layout does not have. Raises ConfigError."""
    if split not in SPLITS:
        raise ConfigError(f"unknown split {split!r}; expected {' or '.join(SPLITS)}")
    if unknown := [task.name for task in tasks if task.name not in layout.annotations]:
        raise ConfigError(f"unknown task {unknown[0]!r}; {layout.name} has {', '.join(layout.annotations)}")


def absent_files(root: Path, names: Sequence[str], groups: Sequence[Alternatives]) -> list[tuple[str, Alternatives]]:
    """The names and the groups of files that are missing, picture by picture.

    Each folder is listed once, and no file is opened. Raises DataError if a folder cannot be listed.
    """
    wanted = [(name, group, [fill(pattern, name) for pattern in group]) for name in names for group in groups]
    folders = {file.rpartition("/")[0] for _, _, files in wanted for file in files}
    there = {f"{folder}/{name}".lstrip("/") for folder in folders for name in names_in(root / folder)}
    return [(name, group) for name, group, files in wanted if there.isdisjoint(files)]


def names_in(folder: Path) -> list[str]:
    """What a folder holds; nothing if there is no such folder. Raises DataError if it cannot be listed."""
    with reading(folder, "a folder that can be listed"):
        if not folder.is_dir():  # one of several alternatives
            return []
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries]


def first_of(root: Path, alternatives: Alternatives, name: str) -> Path:
    """The file of a picture: of several kinds the first that exists, else the last."""
    paths = [root / fill(pattern, name) for pattern in alternatives]
    return next((path for path in paths[:-1] if os.path.lexists(path)), paths[-1])


def fill(pattern: str, name: str) -> str:
    """A pattern with the name of a picture, or of a split, in the place of `*`."""
    return pattern.replace("*", name)
