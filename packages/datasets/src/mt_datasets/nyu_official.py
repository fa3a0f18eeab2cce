"""NYUv2 as its authors published it: one MATLAB file of 1449 labelled frames, and the list of its splits.

`nyu_depth_v2_labeled.mat` is MATLAB 7.3, thus HDF5 with the axes reversed: images (N, 3, W, H) uint8, depths and
rawDepths (N, W, H) float32 in metres, labels (N, W, H) uint16, of which 0 is not annotated. Read frame by frame.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.tv_tensors import Image

from mt_core.dataset import Fault, IncompleteError, Sample
from mt_core.errors import DataError
from mt_core.task import Task

from . import nyud
from .files import MAX_PIXELS, read_mat, read_normals, reading
from .folders import contents, label_of, some_of
from .label_edges import edges_from_classes
from .layout import absent_files, fill, first_of
from .nyu_classes import Table, beside, raw_to
from .pinhole import Pinhole, normals_from_depth

if TYPE_CHECKING:
    import h5py

FILE = "nyu_depth_v2_labeled.mat"
SPLITS_FILE = "splits.mat"
SOURCE = "https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html"

# The colour camera, of the data set's toolbox (camera_params.m): depths of the labelled frames are in its view.
CAMERA = Pinhole((480, 640), focal=(518.85790117, 519.46961112), centre=(325.58244941, 253.73616633))

_VARIABLES = {"images": "u", "depths": "f", "rawDepths": "f", "labels": "u"}  # and the kind of their numbers
_READS = {"semseg": ("labels",), "depth": ("depths",), "normals": ("depths",), "edges": ("labels",)}
_GIVEN = {"normals": ("normals/*.npy", "normals/*.png"), "edges": ("edge/*.npy",)}
_READ_GIVEN = {"normals": read_normals, "edges": nyud.read_edges}

EXPECTED = (
    f"the official layout: {FILE} and {SPLITS_FILE}, which its authors offer at {SOURCE}; beside them, where there are "
    f"any, normals/*.npy or *.png and edge/*.npy as in NYUD_MT, named 0001, 0002, ..."
)


@dataclass(frozen=True, eq=False)
class Frames:
    """The frames of one split with the annotations of `tasks`. Nothing stays open, so any process may read them.

    Attributes:
        file: nyu_depth_v2_labeled.mat.
        numbers: of the frames, from 1.
        tables: by task, the class of each raw label.
        depths: which variable depth is read from.
        given: tasks whose annotations are files of their own; other normals are computed, other edges derived.
    """

    file: Path
    numbers: tuple[int, ...]
    tasks: tuple[Task, ...]
    tables: Mapping[str, Table]
    depths: str
    given: frozenset[str]

    def __len__(self) -> int:
        return len(self.numbers)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The ids of the samples: the numbers of the frames."""
        return tuple(f"{number:04}" for number in self.numbers)

    def files(self, index: int) -> tuple[Path, ...]:
        """The files that one frame and its annotations are read from."""
        own = [given_file(self.file.parent, task.name, self.numbers[index]) for task in self.tasks if self._has(task)]
        return (self.file, *own)

    def __getitem__(self, index: int, /) -> Sample:
        """Read one frame.

        Raises:
            DataError: if the file or one beside it is damaged, or holds values that cannot be right.
        """
        number, name = self.numbers[index], self.ids[index]
        labels = {}
        with opened(self.file) as variables:
            image = np.ascontiguousarray(self._frame(variables, "images", number).swapaxes(-1, -2))  # (3, H, W)
            for task in self.tasks:
                values: NDArray[Any] | None
                where = f"{self.file}: frame {number}"
                if self._has(task):
                    path = given_file(self.file.parent, task.name, number)
                    values, where = _READ_GIVEN[task.name](path), str(path)
                else:
                    values = self._read(variables, task.name, number)
                if values is not None:
                    labels[task.name] = label_of(task, values, where, name, image.shape)
        return Sample(name, torch.from_numpy(image).as_subclass(Image), labels)

    def _read(self, variables: h5py.File, task: str, number: int) -> NDArray[Any] | None:
        """Shaped and typed as the task's label; None where no surface is seen that could have normals."""
        if task in self.tables:
            raw = np.ascontiguousarray(self._frame(variables, "labels", number).T)  # (H, W)
            if raw.max() >= len(self.tables[task]):
                raise DataError(
                    f"{self.file}: frame {number}: label {raw.max()}; expected one of the {len(self.tables[task]) - 1} "
                    f"classes of NYUv2, or 0 where it is not annotated; restore the file"
                )
            classes = self.tables[task][raw]
            return classes if task == "semseg" else edges_from_classes(classes)
        depth = np.ascontiguousarray(self._frame(variables, self.depths, number).T, np.float32)  # (H, W)
        if task == "depth":
            return depth[None]
        normals = normals_from_depth(depth, CAMERA)
        return normals if normals.any() else None

    def _frame(self, variables: h5py.File, name: str, number: int) -> NDArray[Any]:
        with reading(f"{self.file}: frame {number} of {name}", "an array of numbers"):
            frame: NDArray[Any] = variables[name][number - 1]
        return frame

    def _has(self, task: Task) -> bool:
        return task.name in self.given


def is_official(folder: Path) -> bool:
    """Whether a folder is meant for this layout."""
    return os.path.lexists(folder / FILE)


def open_frames(folder: Path, split: str, tasks: Sequence[Task], classes: int, raw_depth: bool) -> Frames:
    """The frames of a split, after a look whether the file has what `tasks` need.

    Raises:
        DataError: if the file or the list of the splits is missing or damaged.
        IncompleteError: if files beside it are missing, or entries of the list are wrong.
    """
    file, depths = folder / FILE, "rawDepths" if raw_depth else "depths"
    given = frozenset(task.name for task in tasks if is_given(folder, task.name))
    needed = {"images", *(name for task in tasks if task.name not in given for name in _READS[task.name])}
    with opened(file) as variables:
        count = _check(variables, file, [depths if name == "depths" else name for name in sorted(needed)])
    numbers, faults = _numbers(folder, split, count)
    annotated = {"semseg": classes, "edges": 40}
    tables = {task.name: raw_to(annotated[task.name], folder) for task in tasks if task.name in annotated}
    frames = Frames(file, numbers, tuple(tasks), tables, depths, given)
    messages = [fault.message for fault in faults[:1]]
    if missing := _missing(folder, sorted(given), numbers):
        messages.append(
            f"{len(missing)} of the files beside {FILE} that the split {split} calls for are missing: "
            f"{some_of(str(fault.file) for fault in missing)}; restore them, or take their folder away: then they are "
            f"made from what the file holds"
        )
    if messages:
        raise IncompleteError("; ".join(messages), frames, [*faults, *missing])
    return frames


def _missing(folder: Path, tasks: Sequence[str], numbers: Sequence[int]) -> list[Fault]:
    """The files beside the MATLAB file that are not there; each of their folders is listed once."""
    faults = []
    for task in tasks:
        absent = absent_files(folder, [f"{number:04}" for number in numbers], [_GIVEN[task]])
        for name, group in absent:
            path = folder / fill(group[-1], name)
            message = f"{' or '.join(str(folder / fill(pattern, name)) for pattern in group)}: no such file"
            faults.append(Fault(path, f"{message}, which frame {name} needs; restore it", name, task))
    return faults


def is_given(folder: Path, task: str) -> bool:
    """Whether the annotations of a task are files of their own, beside the MATLAB file."""
    return task in _GIVEN and (folder / _GIVEN[task][0]).parent.is_dir()


def given_file(folder: Path, task: str, number: int) -> Path:
    """The file of a frame, from 1; of several kinds the first that exists."""
    return first_of(folder, _GIVEN[task], f"{number:04}")


@contextmanager
def opened(file: Path) -> Iterator[h5py.File]:
    """The MATLAB file, as long as one frame is read. Raises DataError."""
    import h5py  # slow to import, and only this layout needs it

    with reading(file, "a MATLAB 7.3 file (HDF5)"), h5py.File(file, "r") as variables:
        yield variables


def _check(variables: h5py.File, file: Path, names: Sequence[str]) -> int:
    """How many frames there are; refuses variables of other shapes or kinds than expected."""
    shapes = {name: _shape(variables, file, name) for name in names}
    frames, _, width, height = shapes["images"]
    for name, shape in shapes.items():
        expected = (frames, 3, width, height) if name == "images" else (frames, width, height)
        if shape != expected:
            raise DataError(f"{file}: {name} is {shape}; expected {expected}, as images has it; restore the file")
    return frames


def _shape(variables: h5py.File, file: Path, name: str) -> tuple[int, ...]:
    import h5py

    if name not in variables:
        raise DataError(f"{file}: there is no variable {name!r} in it, but {contents_of(variables)}; restore the file")
    variable, link = variables[name], variables.get(name, getlink=True)
    # a variable that lives in another file is none of this one's
    own = isinstance(link, h5py.HardLink) and isinstance(variable, h5py.Dataset)
    if not own or variable.external or variable.is_virtual or variable.dtype.kind != _VARIABLES[name]:
        kind = {"u": "unsigned integers", "f": "floats"}[_VARIABLES[name]]
        raise DataError(f"{file}: {name} is no array of {kind} in this file; restore the file")
    shape = tuple(variable.shape)
    if len(shape) != (4 if name == "images" else 3) or not all(shape) or shape[-1] * shape[-2] > MAX_PIXELS:
        raise DataError(f"{file}: {name} is {shape}; expected frames first, then width and height; restore the file")
    return shape


def contents_of(variables: h5py.File) -> str:
    """The names of a few variables, for messages."""
    return ", ".join(sorted(variables)[:8]) or "nothing"


def _numbers(folder: Path, split: str, count: int) -> tuple[tuple[int, ...], list[Fault]]:
    """The frames of a split that can be, each once, and what is wrong with the others. Raises DataError."""
    path = beside(folder, SPLITS_FILE)
    if path is None:
        raise DataError(f"{folder / SPLITS_FILE}: no such file, but {contents(folder)}; it is offered at {SOURCE}")
    name = {"train": "trainNdxs", "val": "testNdxs"}[split]
    listed = read_mat(path, name).ravel()
    expected = f"expected numbers from 1 to {count}, which {FILE} has, each once"
    if not listed.size or listed.dtype.kind not in "uif":
        raise DataError(f"{path}: {name} is no list of frames; {expected}")
    numbers: dict[int, None] = {}
    wrong: dict[str, None] = {}
    for value in listed.tolist():
        if not 1 <= value <= count or value != int(value):
            wrong[f"{path}: {name} lists {value}; {expected}"] = None
        elif int(value) in numbers:
            wrong[f"{path}: {name} lists {value} twice; {expected}"] = None
        else:
            numbers[int(value)] = None
    return tuple(numbers), [Fault(path, text) for text in wrong]
