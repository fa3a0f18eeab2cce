"""Data sets that are folders of files named after the picture: what is needed, what is there, and reading it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.tv_tensors import Image

from mt_core.dataset import SPLITS, Fault, IncompleteError, Sample
from mt_core.errors import ConfigError, DataError
from mt_core.labels import Label
from mt_core.task import Task

from .files import read_picture, reading, scan_ids

Alternatives = tuple[str, ...]  # file patterns, "normals/*.npy"; the first that exists for a picture is read


@dataclass(frozen=True)
class Annotation:
    """How the annotations of one task are stored.

    Attributes:
        files: what one picture's annotation needs: for each entry, one file.
        read: function of the paths of those files -> values shaped and typed as the task's label, or None where
            the picture has no such annotation.
        note: for messages about values, where a file holds others than the label.
    """

    files: tuple[Alternatives, ...]
    read: Callable[..., NDArray[Any] | None]
    note: str = ""


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


@dataclass(frozen=True)
class Pictures:
    """The pictures of one split with the annotations of `tasks`; reads them when asked, and keeps nothing."""

    root: Path
    layout: Layout
    ids: tuple[str, ...]
    tasks: tuple[Task, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int, /) -> Sample:
        """Read one picture.

        Raises:
            DataError: if a file is damaged, has another size than its picture, or values that cannot be right.
        """
        name = self.ids[index]
        image = torch.from_numpy(self.layout.read(_first(self.root, (self.layout.pictures,), name)))
        labels = {task.name: self._label(task, name, image.shape[-2:]) for task in self.tasks}
        present = {task: label for task, label in labels.items() if label is not None}
        return Sample(name, image.as_subclass(Image), present)

    def files(self, index: int) -> tuple[Path, ...]:
        """The files that one picture and its annotations are read from."""
        groups = [group for task in self.tasks for group in self.layout.needs(task.name)] or [(self.layout.pictures,)]
        return tuple(dict.fromkeys(_first(self.root, group, self.ids[index]) for group in groups))

    def _label(self, task: Task, name: str, size: torch.Size) -> Label | None:
        annotation = self.layout.annotations[task.name]
        paths = [_first(self.root, alternatives, name) for alternatives in annotation.files]
        values = annotation.read(*paths)
        if values is None:
            return None
        if values.shape[-2:] != size:
            raise DataError(
                f"{paths[0]}: {_size(values.shape)} pixels (width x height), but the picture {name} has "
                f"{_size(size)}; labels must have the size of their picture"
            )
        label = torch.from_numpy(values).as_subclass(task.label)
        task.check(label, f"{paths[0]}{annotation.note}")
        return label


def open_split(layout: Layout, root: str, split: str, tasks: Sequence[Task]) -> Pictures:
    """The pictures that the split's list names, after a look whether every file that `tasks` need is there.

    Raises:
        ConfigError: if there is no such split or task.
        DataError: if `root` or a folder is missing, or the list cannot be read.
        IncompleteError: if files are missing, or entries of the list are wrong.
    """
    expect_choice(layout, split, tasks)
    folder = open_root(root, layout.describe())
    listed = _fill(layout.lists, split)
    with reading(folder / listed, "the list of a split"):
        is_there = (folder / listed).exists()
    if not is_there:
        raise another_root(f"{folder / listed}: no such file", layout.describe())
    ids, wrong = scan_ids(folder / listed)
    return open_pictures(layout, folder, listed, ids, tasks, [Fault(folder / listed, text) for text in wrong])


def open_pictures(
    layout: Layout, folder: Path, listed: str, ids: Sequence[str], tasks: Sequence[Task], faults: Sequence[Fault] = ()
) -> Pictures:
    """The pictures `ids` that `listed` names, after a look whether every file that `tasks` need is there.

    Raises:
        DataError: if a folder is missing.
        IncompleteError: if files are missing, or there are `faults` already.
    """
    with reading(folder, "a folder that may be looked into"):
        _expect_folders(layout, folder, tasks)
    pictures = Pictures(folder, layout, tuple(ids), tuple(tasks))
    absent = _absent(pictures, listed)
    messages = [fault.message for fault in faults[:1]]
    if absent:
        more = ", ..." if len(absent) > 5 else ""
        messages.append(
            f"{folder}: {len(absent)} of the files that {listed} calls for are missing: "
            f"{', '.join(list(absent)[:5])}{more}; restore them, or take their pictures out of {listed}"
        )
    if messages:
        raise IncompleteError("; ".join(messages), pictures, [*faults, *absent.values()])
    return pictures


def expect_choice(layout: Layout, split: str, tasks: Sequence[Task]) -> None:
    """Refuse a split or a task that the layout does not have. Raises ConfigError."""
    if split not in SPLITS:
        raise ConfigError(f"unknown split {split!r}; expected {' or '.join(SPLITS)}")
    if unknown := [task.name for task in tasks if task.name not in layout.annotations]:
        raise ConfigError(f"unknown task {unknown[0]!r}; {layout.name} has {', '.join(layout.annotations)}")


def open_root(root: str, expected: str) -> Path:
    """The folder of a data set, as the user gave it. Raises DataError, saying what is `expected` there."""
    folder = Path(root).expanduser()
    if not root:
        raise another_root("the folder of the data set is not set", expected)
    with reading(folder, "the folder of a data set"):
        is_folder = folder.is_dir()
    if not is_folder:
        raise another_root(f"{folder} is no folder", expected)
    return folder


def another_root(found: str, expected: str) -> DataError:
    """What to say of a root that cannot be used: what was found, and the layouts that are expected."""
    return DataError(f"{found}; set dataset.root=DIR to a folder in {expected}")


def contents(folder: Path) -> str:
    """What a folder holds, for messages: the first few names."""
    names = sorted(name for name in _names(folder) if not name.startswith("."))
    return ", ".join([*names[:8], "..."] if len(names) > 8 else names) or "nothing"


def _expect_folders(layout: Layout, root: Path, tasks: Sequence[Task]) -> None:
    """Every task in `tasks` has its folders; if not, says which tasks have."""
    absent = {
        task: group
        for task in layout.annotations
        for group in layout.needs(task)
        if not any((root / pattern).parent.is_dir() for pattern in group)
    }
    trainable = [task for task in layout.annotations if task not in absent]
    for task in tasks:
        if task.name in absent:
            folders = " or ".join(dict.fromkeys(str(PurePosixPath(pattern).parent) for pattern in absent[task.name]))
            without = f"train without it: tasks=[{','.join(trainable)}]" if trainable else "no task can do without it"
            raise DataError(f"{root}: no folder {folders}, which task {task.name} needs; add it, or {without}")


def _absent(pictures: Pictures, listed: str) -> dict[str, Fault]:
    """The files that are missing, as patterns say them: each folder is listed once, and no file is opened."""
    root, layout = pictures.root, pictures.layout
    owners: dict[Alternatives, str] = {(layout.pictures,): ""}
    for task in pictures.tasks:
        for group in layout.annotations[task.name].files:
            owners.setdefault(group, task.name)
    folders = {str(PurePosixPath(pattern).parent) for group in owners for pattern in group}
    there = {f"{folder}/{name}" for folder in folders for name in _names(root / folder)}
    absent: dict[str, Fault] = {}
    for name in pictures.ids:
        for group, owner in owners.items():
            files = [_fill(pattern, name) for pattern in group]
            if there.isdisjoint(files):
                text = " or ".join(files)
                message = f"{root}/{text}: no such file, which the picture {name} of {listed} needs; restore it"
                absent[text] = Fault(root / files[-1], message, name, owner)
    return absent


def _names(folder: Path) -> list[str]:
    with reading(folder, "a folder that can be listed"):
        if not folder.is_dir():  # one of several alternatives
            return []
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries]


def _first(root: Path, alternatives: Alternatives, name: str) -> Path:
    paths = [root / _fill(pattern, name) for pattern in alternatives]
    return next((path for path in paths[:-1] if os.path.lexists(path)), paths[-1])


def _fill(pattern: str, name: str) -> str:
    return pattern.replace("*", name)


def _size(shape: Sequence[int]) -> str:
    return f"{shape[-1]} x {shape[-2]}"
