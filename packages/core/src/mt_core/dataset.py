"""The contract of a data set: annotated pictures, task by task, some of which may lack some annotations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from .errors import ConfigError, DataError
from .labels import Label
from .task import Task

SPLITS = ("train", "val")


@dataclass
class Sample:
    """One picture and those of its annotations that exist.

    Attributes:
        id: names the picture in messages and in the files of predictions.
        image: (3, H, W) uint8 `tv_tensors.Image`, RGB.
        labels: by task name; a task without an annotation of this picture is absent.
    """

    id: str
    image: Tensor
    labels: dict[str, Label] = field(default_factory=dict)


class Samples(Protocol):
    """A split: any map-style data set of samples, which can be pickled into workers.

    It may also have `ids`, a sequence of the names of its pictures, and `files(index)`, the paths of the files that one
    picture is read from. Both open no file; messages and `mtrun data verify` name pictures and files by them.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


def name_of(samples: Samples, index: int) -> str:
    """What a picture is called, without reading it: its id where the split says, else its number in the split."""
    ids = getattr(samples, "ids", None)
    return f"picture-{index}" if ids is None else str(ids[index])


@dataclass(frozen=True)
class Fault:
    """What is wrong with a file of a data set, as far as that shows before any is read.

    Attributes:
        file: the file, missing or not.
        message: names it, and says what was found and expected.
        id: the picture that cannot be used for it; empty where it is not about one picture.
        task: the task whose annotation it is; empty for the picture itself.
    """

    file: Path
    message: str
    id: str = ""
    task: str = ""


class IncompleteError(DataError):
    """A split of which some pictures lack files, or whose list has wrong entries; it knows all of them.

    Attributes:
        samples: the split all the same, with a place for every picture; those that lack a file fail when read.
        faults: everything that was found.
    """

    def __init__(self, message: str, samples: Samples, faults: Sequence[Fault]) -> None:
        super().__init__(message)
        self.samples, self.faults = samples, tuple(faults)

    def __reduce__(self) -> tuple[type[IncompleteError], tuple[str, Samples, tuple[Fault, ...]]]:
        return type(self), (str(self), self.samples, self.faults)  # so that it travels between processes


@dataclass(frozen=True)
class Source:
    """Where the files of a data set come from.

    Attributes:
        files: what to get there, by name.
        url: the page of those who publish them.
        terms: under which terms, in a sentence.
    """

    files: tuple[str, ...]
    url: str
    terms: str


@dataclass
class Batch:
    """Samples of one size, stacked.

    Attributes:
        ids: B names.
        images: (B, 3, H, W) float32 in [0, 1].
        labels: by task, (B, H, W) or (B, C, H, W); void where a picture has no annotation.
        present: by task, (B,) boolean, whether the picture has an annotation of the task.
        skipped: ids of pictures that could not be used, and why; black and without annotations in the batch.
    """

    ids: list[str]
    images: Tensor
    labels: dict[str, Tensor]
    present: dict[str, Tensor]
    skipped: dict[str, str] = field(default_factory=dict)

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`."""

        def move(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: x.to(device, non_blocking=True) for name, x in tensors.items()}

        images = self.images.to(device, non_blocking=True)
        return Batch(self.ids, images, move(self.labels), move(self.present), self.skipped)

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory; called by `DataLoader(pin_memory=True)`."""

        def pin(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: x.pin_memory() for name, x in tensors.items()}

        return Batch(self.ids, self.images.pin_memory(), pin(self.labels), pin(self.present), self.skipped)


def collate(samples: Sequence[Sample], tasks: Sequence[Task]) -> Batch:
    """Stack samples of one size; a missing annotation becomes a void one, so that every batch has every task."""
    height, width = samples[0].image.shape[-2:]
    empty = {task.name: task.label.empty(height, width) for task in tasks}
    return Batch(
        ids=[sample.id for sample in samples],
        images=torch.stack([sample.image.as_subclass(torch.Tensor) for sample in samples]).float() / 255,
        labels={
            name: torch.stack([sample.labels.get(name, void).as_subclass(torch.Tensor) for sample in samples])
            for name, void in empty.items()
        },
        present={name: torch.tensor([name in sample.labels for sample in samples]) for name in empty},
    )


@dataclass(kw_only=True)
class Dataset(ABC):
    """Annotated pictures. Subclasses are dataclasses: their fields are their options.

    Class attributes:
        image_size: (height, width) that training uses unless told otherwise.
        zoom, rotation, flip: the augmentation that the published protocols use on it: the range of scale factors,
            the largest rotation in degrees, and whether to mirror half of the pictures.
        sources: where its files can be had; none where it needs no files, or only the user's own.
        usual_tasks: those that are trained unless told otherwise; empty for all that it can annotate.
    """

    image_size: ClassVar[tuple[int, int]]
    zoom: ClassVar[tuple[float, float]] = (1.0, 1.0)
    rotation: ClassVar[float] = 0.0
    flip: ClassVar[bool] = True
    sources: ClassVar[tuple[Source, ...]] = ()
    usual_tasks: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def tasks(self) -> Mapping[str, Task]:
        """Every task it can annotate, by name, in the usual order. Needs no files."""

    @abstractmethod
    def split(self, name: str, tasks: Sequence[Task]) -> Samples:
        """The pictures of `train` or `val`, with the annotations of `tasks` and no other file opened.

        Raises:
            DataError: if a file that is listed is missing, or the split is empty; an `IncompleteError`, where it can
                say which pictures lack what, so that the others can be used or looked at.
        """

    def notes(self, tasks: Sequence[Task]) -> list[str]:
        """What a reader of results has to know of these annotations: which were computed, derived or left out.

        One sentence each; they stand in `result.json`. Looks at which files are there, and opens no picture.
        """
        return []


def choose(tasks: Mapping[str, Task], wanted: Sequence[str] | None) -> tuple[Task, ...]:
    """The tasks named by `wanted`, in that order: `semseg`, or `semseg:7` to set its channels. None means all.

    Raises:
        ConfigError: if a name is unknown or stands twice, or a number of channels is not a number.
    """
    if wanted is None:
        return tuple(tasks.values())
    if not wanted:
        raise ConfigError(f"tasks is empty; choose at least one of {', '.join(tasks)}")
    chosen: dict[str, Task] = {}
    for entry in wanted:
        name, colon, channels = entry.partition(":")
        if name not in tasks:
            raise ConfigError(f"unknown task {name!r}; this data set has {', '.join(tasks)}")
        if name in chosen:
            raise ConfigError(f"task {name!r} stands twice in tasks={list(wanted)}; name each once")
        if colon and not channels.isdecimal():
            raise ConfigError(f"task {entry!r}: expected NAME or NAME:CHANNELS, for example {name}:7")
        chosen[name] = tasks[name].with_channels(int(channels)) if channels else tasks[name]
    return tuple(chosen.values())
