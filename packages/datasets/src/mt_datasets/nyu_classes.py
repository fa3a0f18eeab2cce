"""The classes of NYUv2: 894 as annotated, 40 of Gupta et al. (CVPR 2013), 13 of Couprie et al. (ICLR 2013).

The tables are the official ones, `mapClass` of classMapping40.mat and `labels13` of class13Mapping.mat; where these
files lie beside a data set, theirs are used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mt_core.errors import DataError
from mt_core.labels import IGNORE

from .files import read_mat, reading

_NAMES = """wall, floor, cabinet, bed, chair, sofa, table, door, window, bookshelf, picture, counter, blinds, desk,
shelves, curtain, dresser, pillow, mirror, floor mat, clothes, ceiling, books, refrigerator, television, paper, towel,
shower curtain, box, whiteboard, person, night stand, toilet, sink, lamp, bathtub, bag, other structure,
other furniture, other prop"""
_NAMES_13 = "bed, books, ceiling, chair, floor, furniture, objects, picture, sofa, table, tv, wall, window"
CLASSES = {13: tuple(_NAMES_13.split(", ")), 40: tuple(_NAMES.replace("\n", " ").split(", "))}

_TO_40 = """
40 40 3 22 5 40 12 38 40 40 2 39 40 40 26 40 24 40 7 40 1 40 40 34 38 29 40 8 40 40 40 40 38 40 40 14 40 38 40 40 40
15 39 40 30 40 40 39 40 39 38 40 38 40 37 40 38 38 9 40 40 38 40 11 38 40 40 40 40 40 40 40 40 40 40 40 40 40 38 13 40
40 6 40 23 40 39 10 16 40 40 40 40 38 40 40 40 40 40 40 40 40 40 38 40 39 40 40 40 40 39 38 40 40 40 40 40 40 18 40 40
19 28 33 40 40 40 40 40 40 40 40 40 38 27 36 40 40 40 40 21 40 20 35 40 40 40 40 40 40 40 40 38 40 40 40 4 32 40 40 39
40 39 40 40 40 40 40 17 40 40 25 40 39 40 40 40 40 40 40 40 40 39 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40
40 40 40 39 40 40 40 40 40 40 40 40 40 39 38 38 40 40 39 40 39 40 38 39 38 40 40 40 40 40 40 40 40 40 40 39 40 38 40
40 38 38 40 40 40 40 40 40 40 40 40 40 40 40 40 38 40 40 40 40 40 39 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 39
40 40 40 40 40 40 40 40 40 40 40 40 39 40 40 40 38 40 40 39 40 40 38 40 40 40 40 40 40 40 40 40 40 40 39 40 40 40 40
40 40 40 40 40 40 40 40 40 40 40 40 40 31 40 40 40 40 40 40 40 38 40 40 38 39 39 40 40 40 40 40 40 40 40 40 38 40 39
40 40 39 40 40 40 38 40 40 40 40 40 40 40 40 38 39 40 40 40 40 40 40 38 40 40 40 40 40 40 40 40 40 40 40 38 39 40 40
40 40 40 40 40 39 40 40 40 40 40 40 38 40 40 40 38 40 39 40 40 40 39 39 40 40 40 40 40 40 40 40 40 40 39 40 40 40 40
40 40 40 40 40 40 40 40 39 39 40 40 39 39 40 40 40 40 38 40 40 38 39 39 40 39 40 39 38 40 40 40 40 40 40 40 40 40 40
40 39 40 38 40 39 40 40 40 40 40 39 39 40 40 40 40 40 40 39 39 40 40 38 39 39 40 40 40 40 40 40 40 40 40 39 39 40 40
40 40 39 40 40 40 40 40 39 40 40 39 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 39 38 40 40 40 40 40 40 40 39 38 39
40 38 39 40 39 40 39 40 40 40 40 40 40 40 40 38 40 40 40 40 40 38 40 40 39 40 40 40 39 40 38 40 40 40 40 40 40 40 40
38 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 39 38 40 40 38 40 40 38 40 40 40 40 40 40 40 40 40 39 40 40 40 40
40 40 40 40 40 40 40 40 40 40 40 40 38 40 40 38 40 40 40 40 40 40 40 40 40 40 40 38 38 38 40 40 40 38 40 40 40 38 38
40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 38 40 40 40 40 40 40 40 40 40 40 40 40 40 38 40 38 39 40 40 40 40
40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 39 40 40 40 40 40 40 40 40 40 40 40 40
40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 39 40 39 40 40 40 40 38 38 40 40 40 38 40 40 40
40 40 40 40 40 40 40 40 40 40 40 39 40 40 39 40 40 39 39 40 40 40 40 40 40 40 40 39 39 39 40 40 40 40 39 40 40 40 40
40 40 40 40 39 40 40 40 40 40 39 40 40 40 40 40 40 40 40 40 40 40 40 40 40 38 40 40 40 40 40 40 40 39 40 40 38 40 39
40 40 40 40 38 40 40 40 40 40 38 40 40 40 40 40 40 40 39 40 40 40 40 40 40 40 40 40 39 40 40
"""
_TO_13 = """
12 5 6 1 4 9 10 12 13 6 8 6 13 10 6 13 6 7 7 5 7 3 2 6 11 7 7 7 7 7 7 6 7 7 7 7 7 7 6 7
"""

Table = NDArray[np.int64]  # class of a raw number, counted from 0, or IGNORE


def raw_to_40(folder: Path) -> Table:
    """The class, 0..39, of each raw number 0..894, of which 0 is not annotated: (895,).

    folder: the data set's, in which classMapping40.mat may lie, or maps/classMapping40.mat. Raises DataError.
    """
    path = beside(folder, "classMapping40.mat")
    numbers = _numbers(_TO_40) if path is None else read_mat(path, "mapClass")
    return _table(numbers, 894, 40, path)


def forty_to_13(folder: Path) -> Table:
    """The class, 0..12, of each class 1..40, of which 0 is not annotated: (41,). As `raw_to_40`."""
    path = beside(folder, "class13Mapping.mat")
    if path is None:
        return _table(_numbers(_TO_13), 40, 13, path)
    mapping = read_mat(path, "classMapping13")
    with reading(path, "the struct `classMapping13` with `labels13`"):
        numbers = mapping["labels13"].item()
    return _table(numbers, 40, 13, path)


def raw_to(classes: int, folder: Path) -> Table:
    """The class of each raw number, among 40 or 13. Raises DataError."""
    return raw_to_40(folder) if classes == 40 else through(raw_to_40(folder), forty_to_13(folder))


def through(first: Table, second: Table) -> Table:
    """One table after the other; the second one is for classes that count from 1."""
    return np.where(first == IGNORE, IGNORE, second[np.where(first == IGNORE, 0, first + 1)])


def beside(folder: Path, name: str) -> Path | None:
    """The file of that name in a data set's folder, or in its `maps`; None if there is none."""
    return next((path for path in (folder / name, folder / "maps" / name) if path.is_file()), None)


def _numbers(text: str) -> Table:
    return np.array(text.split(), np.int64)


def _table(numbers: NDArray[Any], count: int, classes: int, path: Path | None) -> Table:
    flat = numbers.ravel()
    if flat.size != count or flat.dtype.kind not in "uif" or not np.isin(flat, range(1, classes + 1)).all():
        raise DataError(
            f"{path}: a table of {flat.size} values; expected the official one, {count} classes from 1 to {classes}; "
            f"restore the file, or remove it: its table is built in"
        )
    return np.concatenate([[IGNORE], flat.astype(np.int64) - 1])
