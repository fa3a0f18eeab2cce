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
    """

    listed: str
    names: frozenset[str]


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


@dataclass(frozen=True)
class Pictures:
    """The pictures of one split with the annotations of `tasks`; reads them when asked, and keeps nothing.

    ids: names that patterns are filled with; a folder in front of a name (`aachen/`) is no part of the sample's id.
    """

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
        return Sample(PurePosixPath(name).name, image.as_subclass(Image), present)

    def _label(self, task: Task, name: str, size: torch.Size) -> Label | None:
        annotation = self.layout.annotations[task.name]
        paths = [_first(self.root, alternatives, name) for alternatives in annotation.files]
        if annotation.partial and not all(path.exists() for path in paths):
            return None
        values = annotation.read(*paths)
        return None if values is None else label_of(task, values, str(paths[0]), name, size, annotation.note)


def label_of(task: Task, values: NDArray[Any], where: str, name: str, size: Sequence[int], note: str = "") -> Label:
    """The label of a picture from values as they were read.

    Args:
        where: what held the values, for messages.
        name, size: of the picture; the size ends with (height, width).
        note: for messages about values.

    Raises:
        DataError: if they have another size than the picture, or cannot be right.
    """
    if tuple(values.shape[-2:]) != tuple(size[-2:]):
        raise DataError(
            f"{where}: {_size(values.shape)} pixels (width x height), but the picture {name} has "
            f"{_size(size)}; labels must have the size of their picture"
        )
    label = torch.from_numpy(values).as_subclass(task.label)
    task.check(label, f"{where}{note}")
    return label


def open_split(
    layout: Layout, root: str, split: str, tasks: Sequence[Task], promises: Mapping[str, Promise] = NO_PROMISES
) -> Pictures:
    """The pictures that the split's list names, after a look whether every file that `tasks` need is there.

    promises: by the name of a task whose annotation is partial.

    Raises:
        ConfigError: if there is no such split or task.
        DataError: if `root`, a folder or a file is missing, or the list cannot be used.
    """
    expect_choice(layout, split, tasks)
    folder = open_root(root, layout.describe())
    listed = _fill(layout.lists, split)
    if not (folder / listed).is_file():
        raise another_root(f"{folder / listed}: no such file", layout.describe())
    return open_pictures(layout, folder, listed, read_ids(folder / listed), tasks, promises)


def open_pictures(
    layout: Layout,
    folder: Path,
    listed: str,
    ids: Sequence[str],
    tasks: Sequence[Task],
    promises: Mapping[str, Promise] = NO_PROMISES,
) -> Pictures:
    """The pictures `ids` that `listed` names, after a look whether every file that `tasks` need is there.

    Raises:
        DataError: if a folder or a file is missing.
    """
    _expect_folders(layout, folder, tasks)
    _expect_files(layout, folder, listed, ids, tasks)
    for task in tasks:
        if layout.annotations[task.name].partial:
            _expect_some(layout, folder, listed, ids, task.name, promises.get(task.name))
    return Pictures(folder, layout, tuple(ids), tuple(tasks))


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
    if not folder.is_dir():
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


def _expect_files(layout: Layout, root: Path, listed: str, ids: Sequence[str], tasks: Sequence[Task]) -> None:
    """Every picture of `ids` has all the files of `tasks` but those that it may be without."""
    needed = [
        group
        for task in tasks
        for group in (layout.needs(task.name)[:1] if layout.annotations[task.name].partial else layout.needs(task.name))
    ]
    groups = list(dict.fromkeys(needed))
    if absent := absent_files(root, ids, groups):
        more = ", ..." if len(absent) > 5 else ""
        raise DataError(
            f"{root}: {len(absent)} of the files that {listed} calls for are missing: "
            f"{', '.join(absent[:5])}{more}; restore them, or take their pictures out of {listed}"
        )


def _expect_some(
    layout: Layout, root: Path, listed: str, ids: Sequence[str], task: str, promise: Promise | None
) -> None:
    """Some picture of `ids` has the partial annotation of `task`, and so has every one that was promised to."""
    groups = layout.annotations[task].files
    without = absent_files(root, ids, groups)
    if len(without) >= len(ids) * len(groups):
        raise DataError(
            f"{root}: none of the pictures that {listed} names has an annotation of task {task}; restore files like "
            f"{without[0]}, or train without the task"
        )
    if promise and (broken := absent_files(root, [name for name in ids if name in promise.names], groups)):
        raise DataError(
            f"{root}: {promise.listed} promises {len(broken)} files of task {task} that are missing: "
            f"{', '.join(broken[:5])}{', ...' if len(broken) > 5 else ''}; restore them, or take them out of that list"
        )


def lacking(layout: Layout, root: str, split: str, task: str) -> tuple[int, int]:
    """How many pictures of a split lack the annotation of `task`, and how many there are; 0 where it is not partial."""
    listed = Path(root).expanduser() / _fill(layout.lists, split)
    if not layout.annotations[task].partial or not listed.is_file():
        return 0, 0
    ids = read_ids(listed)
    return len(absent_files(Path(root).expanduser(), ids, layout.annotations[task].files)), len(ids)


def absent_files(root: Path, ids: Sequence[str], groups: Sequence[Alternatives]) -> list[str]:
    """The files that are missing, picture by picture: each folder is listed once, and no file is opened."""
    wanted = [[_fill(pattern, name) for pattern in group] for name in ids for group in groups]
    folders = {file.rpartition("/")[0] for files in wanted for file in files}
    there = {f"{folder}/{name}".lstrip("/") for folder in folders for name in _names(root / folder)}
    return [" or ".join(files) for files in wanted if there.isdisjoint(files)]


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
