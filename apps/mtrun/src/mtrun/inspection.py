"""Looks at one picture of a data set after the other: what is wrong with it, and what is in it. Runs in workers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import torch
from torch import Tensor

from mt_core.dataset import Sample, Samples, name_of
from mt_core.errors import DataError, MTError
from mt_core.labels import DepthMap
from mt_core.task import Task

FAR = 100.0  # metres; a scene half of which is farther is more likely in another unit


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with a data set.

    Attributes:
        message: names the file, and says what was found and expected.
        split: the split it was found in.
        id: the picture; empty where it is about more than one.
        task: the task whose annotation it is; empty for the picture itself, or the whole split.
        file: the file; empty where the data set does not say which files a picture is read from.
        is_error: whether training or evaluation would go wrong; else it only looks suspicious.
    """

    message: str
    split: str
    id: str = ""
    task: str = ""
    file: str = ""
    is_error: bool = True

    def to_json(self) -> dict[str, str | None]:
        """As plain values, with the severity by name."""
        values = {name: value or None for name, value in vars(self).items() if name != "is_error"}
        return {"severity": "error" if self.is_error else "warning", **values}


@dataclass(frozen=True)
class Contents:
    """What one annotation holds.

    Attributes:
        pixels, void: how many pixels it has, and how many of them are not annotated.
        counts: of each class; empty where the task has none.
        low, high, total, values: the least and the greatest value, the sum of all, and how many; without classes.
    """

    pixels: int
    void: int
    counts: tuple[int, ...] = ()
    low: float = 0.0
    high: float = 0.0
    total: float = 0.0
    values: int = 0


@dataclass
class Finding:
    """What was found out about one picture.

    Attributes:
        id: of the picture.
        size: (height, width); None if it cannot be read.
        digest: of its pixels; equal for equal pictures.
        file: that it is read from, where the data set says.
        where: what messages call it: its file and, where that does not say it, its id.
        contents: of its annotations, by task.
        problems: everything that is wrong.
    """

    id: str
    size: tuple[int, int] | None = None
    digest: str = ""
    file: str = ""
    where: str = ""
    contents: dict[str, Contents] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True)
class Inspector:
    """The pictures of a split, each of which is looked at when it is asked for.

    First with all annotations at once; if that fails, with one at a time, so that none hides the faults of another.

    Attributes:
        split: its name.
        tasks: by name.
        together: the split with all annotations.
        apart: the split with the annotation of one task, by its name; "" has the pictures alone.
        count: how many pictures there are.
    """

    split: str
    tasks: Mapping[str, Task]
    together: Samples | None
    apart: Mapping[str, Samples]
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Finding:
        if self.together is not None and index < len(self.together):
            try:
                found = self._look(self.together[index], self.together, index)
            except Exception:  # noqa: BLE001 - whatever it was, it is found again and told below
                return self._one_by_one(name_of(self.together, index), index)
            return self._one_by_one(found.id, index) if found.problems else found
        view = next(view for view in self.apart.values() if index < len(view))
        return self._one_by_one(name_of(view, index), index)

    def _one_by_one(self, name: str, index: int) -> Finding:
        result, messages = Finding(name), set[str]()
        for task, samples in self.apart.items():
            place = _place(samples, name, index)
            if place is None:
                continue
            try:
                found = self._look(samples[place], samples, place)
            except Exception as error:  # noqa: BLE001 - a stranger's data set may raise anything
                found = Finding(name, problems=[self._problem(name, task, error, _files(samples, place))])
            result.contents |= found.contents
            if found.size is not None and result.size is None:
                result.id, result.size, result.digest = found.id, found.size, found.digest
                result.file, result.where = found.file, found.where
            for problem in found.problems:
                if problem.message not in messages:
                    messages.add(problem.message)
                    result.problems.append(problem)
        return result

    def _problem(self, name: str, task: str, error: Exception, files: Sequence[str]) -> Problem:
        message = str(error) if isinstance(error, MTError) else f"{name}: {type(error).__name__}: {error}"
        file = next((file for file in files if file in message), files[0] if len(files) == 1 else "")
        is_picture = len(files) > 1 and file == files[0]
        return Problem(message, self.split, name, "" if is_picture else task, file)

    def _look(self, sample: Sample, samples: Samples, index: int) -> Finding:
        """What is in a sample, and whether it is what the contract says."""
        files = _files(samples, index) or [""]  # the picture's first
        found = Finding(sample.id, file=files[0], where=_told(files[0], sample.id))

        def where(task: str) -> str:
            file = files[min(1, len(files) - 1)] if task else files[0]
            return _told(file, sample.id)

        def report(message: str, task: str = "", is_error: bool = True) -> None:
            file = files[min(1, len(files) - 1)] if task else files[0]
            found.problems.append(Problem(message, self.split, sample.id, task, file, is_error))

        image = sample.image.as_subclass(Tensor)
        if image.dtype is not torch.uint8 or image.ndim != 3 or image.shape[0] != 3 or not image.numel():
            shape = tuple(image.shape)
            report(f"{where('')}: a picture of {image.dtype} and shape {shape}; expected (3, H, W) uint8")
            return found
        found.size = (image.shape[1], image.shape[2])
        found.digest = hashlib.blake2b(
            image.numpy().tobytes(), digest_size=16, key=repr(found.size).encode()
        ).hexdigest()
        if image.numel() > 3 and bool((image == image[:, :1, :1]).all()):
            report(f"{where('')}: the whole picture has one colour; look at it", is_error=False)
        if not sample.id or "/" in sample.id or sample.id in (".", ".."):
            report(f"{where('')}: the id {sample.id!r} cannot be the name of a file, as predictions need it")
        for name, label in sample.labels.items():
            try:
                found.contents[name] = _contents(label, self.tasks[name], found.size, where(name))
            except DataError as error:
                report(str(error), name)
            for message in _suspicions(label):
                report(f"{where(name)}: task {name}: {message}", name, is_error=False)
        return found


def _told(file: str, name: str) -> str:
    """A file and, where that does not say it, the picture that is meant."""
    return (file if name in PurePath(file).name else f"{file}: picture {name}") if file else name


def _contents(label: Tensor, task: Task, size: tuple[int, int], where: str) -> Contents:
    """Raises DataError where the label cannot be right."""
    empty = task.label.empty(*size)
    if not isinstance(label, task.label):
        raise DataError(
            f"{where}: the label of task {task.name} is a {type(label).__name__}; expected a {task.label.__name__}"
        )
    if label.shape != empty.shape or label.dtype != empty.dtype:
        raise DataError(
            f"{where}: the label of task {task.name} is {tuple(label.shape)} {label.dtype}; for this picture expected "
            f"{tuple(empty.shape)} {empty.dtype}"
        )
    plain = label.as_subclass(Tensor)
    task.check(plain, where)
    valid = task.label.valid(plain)  # (H, W)
    pixels, void = valid.numel(), int((~valid).sum())
    values = plain.reshape(-1, *size)[:, valid]  # (C, V)
    if task.class_count:
        counts = torch.bincount(values.long().flatten(), minlength=task.class_count)
        return Contents(pixels, void, tuple(counts.tolist()))
    low, high = (float(x) for x in values.aminmax())
    return Contents(pixels, void, (), low, high, float(values.double().sum()), values.numel())


def _suspicions(label: Tensor) -> Iterator[str]:
    if isinstance(label, DepthMap):
        known = label[label > 0]
        if known.numel() and float(known.median()) > FAR:
            yield f"half of the depth is above {FAR:g} metres; is it in millimetres?"


def _place(samples: Samples, name: str, index: int) -> int | None:
    """Where a split has the picture of that name, or else of that number."""
    ids: Any = getattr(samples, "ids", None)
    if ids is not None:
        try:
            return int(ids.index(name))
        except ValueError:
            return None
    return index if index < len(samples) else None


def _files(samples: Samples, index: int) -> list[str]:
    """The files that a picture is read from, where the split says."""
    files = getattr(samples, "files", None)
    return [] if files is None else [str(file) for file in files(index)]
