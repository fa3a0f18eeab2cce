"""The description of a user's own folder: which tasks it annotates, where the files are and what they hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from mt_core.dataset import SPLITS
from mt_core.errors import ConfigError, DataError
from mt_core.options import from_dict
from mt_core.task import Task
from mt_core.tasks import Depth, Edges, HumanParts, Normals, Saliency, Segmentation

from .encodings import DIRECTIONS, Axes, ClassNumbers, Units, YesNo
from .inverse_depth import InverseDepth
from .layout import Annotation
from .yaml_file import read_yaml

T = TypeVar("T")

PICTURES, LABELS = (".jpg", ".jpeg", ".png", ".npy"), (".png", ".npy")
SPLIT = "{split}"  # in a pattern, stands for train or val


@dataclass(kw_only=True)
class _Entry:
    """What the description says of any task.

    files: its files, as a pattern with `*` for the name of a picture; NAME/*.png if nothing is said.
    partial: whether pictures may lack it.
    """

    kind: str
    files: str = ""
    partial: bool = False


@dataclass(kw_only=True)
class _Classes(_Entry):
    classes: int | list[str]
    ignore: int | list[int] = 255
    first: int = 0

    def task(self, name: str) -> Task:
        names = () if isinstance(self.classes, int) else tuple(self.classes)
        kind = HumanParts if self.kind == "human_parts" else Segmentation
        return kind(name, self._count(), names)

    def reader(self) -> ClassNumbers:
        return ClassNumbers(self.first, self._count(), _several(self.ignore))

    def _count(self) -> int:
        return self.classes if isinstance(self.classes, int) else len(self.classes)


@dataclass(kw_only=True)
class _YesNo(_Entry):
    above: float = 0
    ignore: float | list[float] = field(default_factory=list)

    def task(self, name: str) -> Task:
        return Saliency(name) if self.kind == "saliency" else Edges(name)

    def reader(self) -> YesNo:
        return YesNo(self.above, _several(self.ignore))


@dataclass(kw_only=True)
class _Depth(_Entry):
    scale: float | None = None
    ignore: float | list[float] = 0

    def task(self, name: str) -> Task:
        return Depth(name) if self.kind == "depth" else InverseDepth(name)

    def reader(self) -> Units:
        usual = 0.001 if self.kind == "depth" and not self.files.endswith(".npy") else 1.0
        scale = usual if self.scale is None else self.scale
        if not 0 < scale < float("inf"):
            raise ConfigError(f"scale={scale}: expected a number above 0, metres for each unit of the files")
        return Units(scale, _several(self.ignore))


@dataclass(kw_only=True)
class _Normals(_Entry):
    axes: tuple[str, str, str] = ("right", "up", "towards")

    def task(self, name: str) -> Task:
        return Normals(name)

    def reader(self) -> Axes:
        if sorted(DIRECTIONS.get(axis, (-1, 0))[0] for axis in self.axes) != [0, 1, 2]:
            raise ConfigError(
                f"axes={list(self.axes)}: expected where the three components point: right or left, up or down, "
                f"towards or away, in the order of the files"
            )
        return Axes(self.axes)


_Known = _Classes | _YesNo | _Depth | _Normals
_KINDS: Mapping[str, type[_Known]] = {
    "segmentation": _Classes,
    "human_parts": _Classes,
    "saliency": _YesNo,
    "edges": _YesNo,
    "depth": _Depth,
    "inverse_depth": _Depth,
    "normals": _Normals,
}


@dataclass(frozen=True)
class Description:
    """What a description says.

    Attributes:
        tasks, annotations: by the name of the task.
        images: the pictures, as a pattern with `*` for their names, and perhaps `{split}`.
        splits: the lists of pictures; empty where the pictures of a split are those in its folder.
        image_size: (height, width) that training uses unless told otherwise.
    """

    tasks: Mapping[str, Task]
    annotations: Mapping[str, Annotation]
    images: str
    splits: Mapping[str, str]
    image_size: tuple[int, int]


@dataclass(kw_only=True)
class _Top:
    """The keys of the whole file."""

    tasks: dict[str, dict[str, Any]]
    images: str = "images/*.jpg"
    splits: dict[str, str] = field(default_factory=dict)
    image_size: tuple[int, int] = (256, 256)


def read_description(path: Path) -> Description:
    """What a YAML file says of the folder it lies in.

    Raises:
        DataError: naming the file and the key, what was expected, and the nearest key or kind that there is.
    """
    top = _from(_Top, read_yaml(path), f"{path}")
    if not top.tasks:
        raise DataError(f"{path}: tasks is empty; name at least one, as in `tasks: {{depth: {{kind: depth}}}}`")
    if min(top.image_size) < 1:
        raise DataError(f"{path}: image_size={list(top.image_size)}: expected a height and a width in pixels")
    _check_pattern(f"{path}: images", top.images, PICTURES)
    tasks, annotations = {}, {}
    for name, values in top.tasks.items():
        tasks[name], annotations[name] = _read_task(f"{path}: tasks.{name}", name, values)
    return Description(tasks, annotations, top.images, _splits(path, top), top.image_size)


def _read_task(where: str, name: str, values: Mapping[str, Any]) -> tuple[Task, Annotation]:
    kind = values.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise DataError(
            f"{where}.kind is {kind!r}; expected one of {', '.join(_KINDS)}{_nearest(str(kind), list(_KINDS))}"
        )
    entry = _from(_KINDS[kind], values, where)
    entry.files = entry.files or f"{name}/*.png"
    _check_pattern(f"{where}.files", entry.files, LABELS)
    try:
        return entry.task(name), Annotation(((entry.files,),), entry.reader(), partial=entry.partial)
    except ConfigError as error:
        raise DataError(f"{where}: {error}") from error


def _splits(path: Path, top: _Top) -> dict[str, str]:
    """The list of each split; none where pictures stand in a folder for each."""
    if not top.splits:
        return {} if SPLIT in top.images else {split: f"{split}.txt" for split in SPLITS}
    if wrong := sorted(set(top.splits) ^ set(SPLITS)):
        raise DataError(
            f"{path}: splits.{wrong[0]}: expected a list of pictures for {' and '.join(SPLITS)}"
            f"{_nearest(wrong[0], list(SPLITS))}"
        )
    for split, listed in top.splits.items():
        if _leaves(listed):
            raise DataError(f"{path}: splits.{split}: {listed!r}; expected a file in the folder of the description")
    return top.splits


def _check_pattern(where: str, pattern: str, endings: tuple[str, ...]) -> None:
    """A pattern stays in the folder, has one `*`, in the file's name, and an ending that is read."""
    folder, _, name = pattern.rpartition("/")
    if _leaves(pattern) or pattern.count("*") != 1 or "*" in folder or not name.endswith(endings):
        raise DataError(
            f"{where}: {pattern!r}; expected a pattern within the folder, such as labels/*{endings[0]}: one * for the "
            f"name of a picture, and {' or '.join(endings)} at the end"
        )


def _leaves(pattern: str) -> bool:
    """Whether a path could lead out of the folder."""
    return bool(re.search(r"^[/~]|\\|:", pattern)) or ".." in pattern.split("/") or not pattern.isprintable()


def _from(cls: type[T], values: Mapping[Any, Any], where: str) -> T:
    """A dataclass from what stands under a key. Raises DataError."""
    known = [one.name for one in fields(cls)]  # type: ignore[arg-type]
    if unknown := [key for key in values if key not in known]:
        raise DataError(
            f"{where}: unknown key {unknown[0]!r}{_nearest(str(unknown[0]), known)}; it may have {', '.join(known)}"
        )
    for one in fields(cls):  # type: ignore[arg-type]
        if one.name not in values and one.default is MISSING and one.default_factory is MISSING:
            raise DataError(f"{where}: {one.name} is missing; add the key {one.name!r}")
    try:
        return from_dict(cls, values, where)
    except ConfigError as error:
        raise DataError(f"{error}; mend the description") from error


def _several(values: Any) -> tuple[Any, ...]:
    return tuple(values) if isinstance(values, list) else (values,)


def _nearest(name: str, known: list[str]) -> str:
    found = get_close_matches(name, known, n=1)
    return f" (did you mean {found[0]!r}?)" if found else ""
