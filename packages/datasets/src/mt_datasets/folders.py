"""Data sets that are folders of files named after the picture: what is needed, what is there, and reading it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from numpy.typing import NDArray
from torchvision.tv_tensors import Image

from mt_core.dataset import Fault, IncompleteError, Sample
from mt_core.errors import DataError
from mt_core.labels import Label
from mt_core.task import Task

from .files import reading, scan_ids
from .layout import NO_PROMISES, Alternatives, Layout, Promise, absent_files, expect_choice, fill, first_of, names_in

_SHOWN = 5  # missing files that a message names


@dataclass(frozen=True)
class Pictures:
    """The pictures of one split with the annotations of `tasks`; reads them when asked, and keeps nothing.

    names: what patterns are filled with; a folder in front of a name (`aachen/`) is no part of the sample's id.
    promises: by task, which pictures have its partial annotation: without it they cannot be read.
    """

    root: Path
    layout: Layout
    names: tuple[str, ...]
    tasks: tuple[Task, ...]
    promises: Mapping[str, Promise] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int, /) -> Sample:
        """Read one picture.

        Raises:
            DataError: if a file is damaged, has another size than its picture, or values that cannot be right.
        """
        name = self.names[index]
        image = torch.from_numpy(self.layout.read(first_of(self.root, (self.layout.pictures,), name)))
        labels = {task.name: self._label(task, name, image.shape[-2:]) for task in self.tasks}
        present = {task: label for task, label in labels.items() if label is not None}
        return Sample(id_of(name), image.as_subclass(Image), present)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The ids of the samples, without reading them."""
        return tuple(id_of(name) for name in self.names)

    def files(self, index: int) -> tuple[Path, ...]:
        """The files that one picture and its annotations are read from, the picture's first."""
        name = self.names[index]
        found = [first_of(self.root, (self.layout.pictures,), name)]
        for task in self.tasks:
            found += self._paths(task, name) or []
        return tuple(dict.fromkeys(found))

    def _label(self, task: Task, name: str, size: torch.Size) -> Label | None:
        annotation, paths = self.layout.annotations[task.name], self._paths(task, name)
        values = None if paths is None else annotation.read(*paths)
        if paths is None or values is None:
            return None
        return label_of(task, values, str(paths[0]), name, size, annotation.note)

    def _paths(self, task: Task, name: str) -> list[Path] | None:
        """The files of an annotation; None where the picture may be without, and is."""
        annotation = self.layout.annotations[task.name]
        paths = [first_of(self.root, alternatives, name) for alternatives in annotation.files]
        is_promised = task.name in self.promises and name in self.promises[task.name].names
        if not annotation.partial or is_promised or all(os.path.lexists(path) for path in paths):
            return paths
        return None


def id_of(name: str) -> str:
    """The id of a sample, from what patterns are filled with."""
    return PurePosixPath(name).name


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
        DataError: if `root` or a folder is missing, or the list cannot be read.
        IncompleteError: if files are missing, or entries of the list are wrong.
    """
    expect_choice(layout, split, tasks)
    folder = open_root(root, layout.describe())
    listed = fill(layout.lists, split)
    with reading(folder / listed, "the list of a split"):
        is_there = (folder / listed).exists()
    if not is_there:
        raise another_root(f"{folder / listed}: no such file", layout.describe())
    names, wrong = scan_ids(folder / listed)
    faults = [Fault(folder / listed, text) for text in wrong]
    return open_pictures(layout, folder, listed, names, tasks, promises, faults)


def open_pictures(
    layout: Layout,
    folder: Path,
    listed: str,
    names: Sequence[str],
    tasks: Sequence[Task],
    promises: Mapping[str, Promise] = NO_PROMISES,
    faults: Sequence[Fault] = (),
) -> Pictures:
    """The pictures `names` that `listed` names, after a look whether every file that `tasks` need is there.

    Raises:
        DataError: if a folder is missing.
        IncompleteError: if files are missing, or there are `faults` already.
    """
    with reading(folder, "a folder that may be looked into"):
        _expect_folders(layout, folder, tasks)
    pictures = Pictures(folder, layout, tuple(names), tuple(tasks), promises)
    found, messages = list(faults), [fault.message for fault in faults[:1]]
    if absent := _absent(pictures, listed):
        messages.append(
            f"{folder}: {len(absent)} of the files that {listed} calls for are missing: {some_of(absent)}; restore "
            f"them, or take their pictures out of {listed}"
        )
        found += absent.values()
    for task in tasks:
        if layout.annotations[task.name].partial:
            _look_for_some(pictures, listed, task.name, promises.get(task.name), found, messages)
    if messages:
        raise IncompleteError("; ".join(messages), pictures, found)
    return pictures


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
    names = sorted(name for name in names_in(folder) if not name.startswith("."))
    return ", ".join([*names[:8], "..."] if len(names) > 8 else names) or "nothing"


def lacking(layout: Layout, folder: Path, names: Sequence[str], tasks: Sequence[Task], split: str) -> list[str]:
    """What results say of partial annotations: how many pictures of a split have none."""
    said = []
    for task in tasks:
        annotation = layout.annotations[task.name]
        without = {name for name, _ in absent_files(folder, names, annotation.files)} if annotation.partial else ()
        if without:
            said.append(f"{task.name}: {len(without)} of {len(names)} pictures of {split} have no file")
    return said


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
    """The files that are missing of those that no picture may be without, as patterns say them."""
    owners: dict[Alternatives, str] = {(pictures.layout.pictures,): ""}
    for task in pictures.tasks:
        annotation = pictures.layout.annotations[task.name]
        for group in () if annotation.partial else annotation.files:
            owners.setdefault(group, task.name)
    faults: dict[str, Fault] = {}
    for name, group in absent_files(pictures.root, pictures.names, list(owners)):
        text = _text(name, group)
        message = f"{pictures.root}/{text}: no such file, which the picture {name} of {listed} needs; restore it"
        faults[text] = Fault(pictures.root / fill(group[-1], name), message, id_of(name), owners[group])
    return faults


def _look_for_some(
    pictures: Pictures, listed: str, task: str, promise: Promise | None, faults: list[Fault], messages: list[str]
) -> None:
    """Some picture has the partial annotation of `task`, and so has every one that was promised to."""
    root, groups = pictures.root, pictures.layout.annotations[task].files
    without = absent_files(root, pictures.names, groups)
    if without and len(without) >= len(pictures) * len(groups):
        messages.append(
            f"{root}: none of the pictures that {listed} names has an annotation of task {task}; restore files like "
            f"{_text(*without[0])}, or train without the task"
        )
        faults.append(Fault(root / fill(groups[0][-1], without[0][0]), messages[-1], task=task))
    if promise is None:
        return
    messages += promise.wrong[:1]
    faults += [Fault(root / promise.listed, text, task=task) for text in promise.wrong]
    broken = {_text(name, group): (name, group) for name, group in without if name in promise.names}
    if broken:
        messages.append(
            f"{root}: {promise.listed} promises {len(broken)} files of task {task} that are missing: "
            f"{some_of(broken)}; restore them, or take them out of that list"
        )
    for text, (name, group) in broken.items():
        message = f"{root}/{text}: no such file, though {promise.listed} promises it; restore it, or take it out there"
        faults.append(Fault(root / fill(group[-1], name), message, id_of(name), task))


def _text(name: str, group: Alternatives) -> str:
    return " or ".join(fill(pattern, name) for pattern in group)


def some_of(files: Iterable[str]) -> str:
    """The first few of many files, for messages."""
    names = list(files)
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _size(shape: Sequence[int]) -> str:
    return f"{shape[-1]} x {shape[-2]}"
