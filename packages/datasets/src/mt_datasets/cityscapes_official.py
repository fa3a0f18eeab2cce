"""Cityscapes as its authors published it: a folder for each kind of file, in it one for each split, in it the cities.

Facts from `labels.py` and the README of mcordts/cityscapesScripts:
    `*_gtFine_labelIds.png` holds ids 0..33. The 19 classes are those with a `trainId`; the 7 are their categories, as
    in table 1 of MTAN (Liu et al., CVPR 2019). What the official evaluation ignores is not annotated in either:
    parking, rail track, guard rail, bridge, tunnel, pole group, caravan, trailer, and all of the category void.
    `*_disparity.png` holds p of 16 bits: the disparity is (p - 1) / 256 pixels, 0 where it is missing.
    Depth is baseline * fx / disparity, with both from `*_camera.json`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mt_core.dataset import SPLITS, Fault
from mt_core.errors import DataError
from mt_core.labels import IGNORE
from mt_core.task import Task

from .files import read_classes, read_grey16, reading
from .folders import Pictures, open_pictures
from .layout import Annotation, Layout, expect_choice

# id of each trainId, and the category of each trainId
_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_CATEGORIES = (0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 5, 6, 6, 6, 6, 6, 6)
_LAST = 33
_SUFFIX = "_leftImg8bit.png"
_LARGEST = 1 << 16  # bytes of a camera's file, which has about 500


def _table(classes: Mapping[int, int]) -> NDArray[np.int64]:
    """The class of each id of a label file; -1 where there is no such id."""
    table = np.full(256, -1)
    table[: _LAST + 1] = table[IGNORE] = IGNORE
    table[list(classes)] = list(classes.values())
    return table


_TABLES = {
    19: _table({number: train for train, number in enumerate(_IDS)}),
    7: _table(dict(zip(_IDS, _CATEGORIES, strict=True))),
}


def official_layout(classes: int, metres: bool, split: str = "{train,val}") -> Layout:
    """Where a split keeps its files; `*` stands for CITY/CITY_SEQUENCE_FRAME."""
    disparity, camera = (f"disparity/{split}/*_disparity.png",), (f"camera/{split}/*_camera.json",)
    labels = (f"gtFine/{split}/*_gtFine_labelIds.png",)
    return Layout(
        name="Cityscapes",
        origin="The files are those of leftImg8bit_trainvaltest.zip, gtFine_trainvaltest.zip, "
        "disparity_trainvaltest.zip and camera_trainvaltest.zip, which cityscapes-dataset.com offers.",
        lists=f"leftImg8bit/{split}/*{_SUFFIX}",
        pictures=f"leftImg8bit/{split}/*{_SUFFIX}",
        annotations={
            "semseg": Annotation((labels,), partial(read_ids, classes=classes)),
            "depth": Annotation((disparity, camera), read_metres)
            if metres
            else Annotation((disparity,), read_inverse_depth, " (inverse depth)"),
        },
    )


def is_official(folder: Path) -> bool:
    """Whether a folder is meant for this layout."""
    return (folder / "leftImg8bit").is_dir()


def open_official(folder: Path, split: str, tasks: Sequence[Task], classes: int, metres: bool) -> Pictures:
    """The pictures of a split, city by city, after a look whether `tasks` have all their files.

    No list names the pictures: whatever has a file in any of the folders is one.

    Raises:
        ConfigError: if there is no such split or task.
        DataError: if a folder is missing.
        IncompleteError: if a file is missing, or a picture has another name than those of Cityscapes.
    """
    layout = official_layout(classes, metres, split)
    expect_choice(layout, split, tasks)
    needed = [group[0] for task in tasks for group in layout.annotations[task.name].files]
    names, strange = _names(folder, layout.pictures, needed)
    faults = [
        Fault(path, f"{path}: expected a picture CITY_SEQUENCE_FRAME{_SUFFIX}; rename it or remove it")
        for path in strange
    ]
    return open_pictures(layout, folder, layout.lists, names, tasks, faults=faults)


def read_inverse_depth(path: Path) -> NDArray[np.float32]:
    """p / 65535, the form in which MTAN's copies hold it: (1, H, W), 0 where it is missing. Raises DataError."""
    return (read_grey16(path) / 65535).astype(np.float32)[None]


def read_metres(path: Path, camera: Path) -> NDArray[np.float32]:
    """Depth (1, H, W) from disparity and camera, 0 where it is missing or infinite. Raises DataError."""
    disparity = (read_grey16(path) - 1) / 256
    baseline, focal = read_camera(camera)
    depth = np.divide(baseline * focal, disparity, out=np.zeros(disparity.shape), where=disparity > 0)
    return depth.astype(np.float32)[None]


def read_camera(path: Path) -> tuple[float, float]:
    """The baseline in metres and the focal length fx in pixels. Raises DataError."""
    with reading(path, "a camera: JSON with extrinsic.baseline and intrinsic.fx"):
        with path.open("rb") as file:
            camera = json.loads(file.read(_LARGEST))
        values = camera["extrinsic"]["baseline"], camera["intrinsic"]["fx"]
    for value in values:
        if not isinstance(value, int | float) or not 0 < value < math.inf:
            raise DataError(
                f"{path}: baseline and fx are {values[0]!r} and {values[1]!r}; expected metres and pixels above 0"
            )
    return float(values[0]), float(values[1])


def read_ids(path: Path, classes: int) -> NDArray[np.int64]:
    """Train ids, or categories if there are 7 classes, of a file of ids: (H, W), 255 void. Raises DataError."""
    ids = read_classes(path)
    inside = np.where((ids >= 0) & (ids <= IGNORE), ids, _LAST + 1)
    labels: NDArray[np.int64] = _TABLES[classes][inside]
    if (labels < 0).any():
        raise DataError(f"{path}: found id {ids[labels < 0][0]}; expected ids of Cityscapes, 0 to {_LAST} (labelIds)")
    return labels


def _names(root: Path, pictures: str, needed: Iterable[str]) -> tuple[list[str], list[Path]]:
    """CITY/CITY_SEQUENCE_FRAME of whatever has a picture or a file that is `needed`, in order; and other pictures."""
    found, strange = _files(root, pictures)
    if not found:
        folder = (root / pictures).parent
        raise DataError(f"{folder}: no city has a picture *{_SUFFIX}; restore them. Splits are {' and '.join(SPLITS)}")
    for pattern in needed:
        if (root / pattern).parent.is_dir():
            found |= _files(root, pattern)[0]
    return sorted(found), strange


def _files(root: Path, pattern: str) -> tuple[set[str], list[Path]]:
    """CITY/NAME of the files CITY/NAME_SUFFIX, and those that have the ending of the suffix only."""
    folder, suffix = (root / pattern).parent, pattern.rpartition("*")[2]
    ending = suffix.rpartition(".")[2]
    found, others = set[str](), []
    with reading(folder, f"a folder of cities with files *{suffix}"):
        for city in sorted(city for city in folder.iterdir() if city.is_dir()):
            names = sorted(path.name for path in city.iterdir() if not path.name.startswith("."))
            found |= {f"{city.name}/{name.removesuffix(suffix)}" for name in names if name.endswith(suffix)}
            others += [city / name for name in names if name.endswith(f".{ending}") and not name.endswith(suffix)]
    return found, others
