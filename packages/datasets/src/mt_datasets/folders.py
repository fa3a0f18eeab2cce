"""Data sets that are folders of files named after the picture: what is needed, what is there, and reading it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from numpy.typing import NDArray
from torchvision.tv_tensors import Image

from mt_core.dataset import SPLITS, Sample
from mt_core.errors import ConfigError, DataError
from mt_core.labels import Label
from mt_core.task import Task

from .files import read_ids, read_picture

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
        lists: the split lists, with `*` for the split.
        pictures: the pictures, with `*` for the name of one.
        annotations: by task.
    """

    name: str
    origin: str
    lists: str
    pictures: str
    annotations: Mapping[str, Annotation]

    def needs(self, task: str) -> tuple[Alternatives, ...]:
        """The files of one picture that `task` is trained on."""
        return ((self.pictures,), *self.annotations[task].files)


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
        image = torch.from_numpy(read_picture(_first(self.root, (self.layout.pictures,), name)))
        labels = {task.name: self._label(task, name, image.shape[-2:]) for task in self.tasks}
        present = {task: label for task, label in labels.items() if label is not None}
        return Sample(name, image.as_subclass(Image), present)

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
        DataError: if `root`, a folder or a file is missing, or the list cannot be used.
    """
    if split not in SPLITS:
        raise ConfigError(f"unknown split {split!r}; expected {' or '.join(SPLITS)}")
    if unknown := [task.name for task in tasks if task.name not in layout.annotations]:
        raise ConfigError(f"unknown task {unknown[0]!r}; {layout.name} has {', '.join(layout.annotations)}")
    listed = _fill(layout.lists, split)
    folder = _root(layout, root, listed)
    ids = read_ids(folder / listed)
    _expect_folders(layout, folder, tasks)
    _expect_files(layout, folder, listed, ids, tasks)
    return Pictures(folder, layout, tuple(ids), tuple(tasks))


def _root(layout: Layout, root: str, listed: str) -> Path:
    """The folder `root`, in which at least the list of the split is where the layout has it."""
    folder = Path(root).expanduser()
    if not root:
        found = "the folder of the data set is not set"
    elif not folder.is_dir():
        found = f"{folder} is no folder"
    elif not (folder / listed).is_file():
        found = f"{folder / listed}: no such file"
    else:
        return folder
    groups = [group for task in layout.annotations for group in layout.needs(task)]
    patterns = dict.fromkeys([layout.lists, *(pattern for group in groups for pattern in group)])
    raise DataError(
        f"{found}; set dataset.root=DIR to a folder in the layout {layout.name}: {', '.join(patterns)}. {layout.origin}"
    )


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


def _expect_files(layout: Layout, root: Path, listed: str, ids: Sequence[str], tasks: Sequence[Task]) -> None:
    """Every picture of `ids` has all the files of `tasks`: each folder is listed once, and no file is opened."""
    groups = list(dict.fromkeys(group for task in tasks for group in layout.needs(task.name)))
    folders = {str(PurePosixPath(pattern).parent) for group in groups for pattern in group}
    there = {f"{folder}/{name}" for folder in folders for name in _names(root / folder)}
    absent = [
        " or ".join(files)
        for name in ids
        for group in groups
        if there.isdisjoint(files := [_fill(pattern, name) for pattern in group])
    ]
    if absent:
        more = ", ..." if len(absent) > 5 else ""
        raise DataError(
            f"{root}: {len(absent)} of the files that {listed} calls for are missing: "
            f"{', '.join(absent[:5])}{more}; restore them, or take their pictures out of the list"
        )


def _names(folder: Path) -> list[str]:
    if not folder.is_dir():  # one of several alternatives
        return []
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]


def _first(root: Path, alternatives: Alternatives, name: str) -> Path:
    paths = [root / _fill(pattern, name) for pattern in alternatives]
    return next((path for path in paths[:-1] if path.exists()), paths[-1])


def _fill(pattern: str, name: str) -> str:
    return pattern.replace("*", name)


def _size(shape: Sequence[int]) -> str:
    return f"{shape[-1]} x {shape[-2]}"
