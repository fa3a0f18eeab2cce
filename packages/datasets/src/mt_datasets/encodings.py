"""How a user's own files hold annotations: each reader is what the description of a folder says of one task."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mt_core.errors import DataError
from mt_core.labels import IGNORE

from .files import read_classes, read_grey, read_grey16, read_normals, read_plane

# where a component of a normal may point -> (component of the label, sign): x right, y up, z towards the camera
DIRECTIONS = {"right": (0, 1), "left": (0, -1), "up": (1, 1), "down": (1, -1), "towards": (2, 1), "away": (2, -1)}


@dataclass(frozen=True)
class ClassNumbers:
    """Reads class numbers of a .png (palette or greyscale) or an .npy as (H, W) int64 from 0, 255 void.

    first: the number of the first class; count: how many there are; ignore: numbers of what is not annotated.
    """

    first: int
    count: int
    ignore: tuple[int, ...]

    def __call__(self, path: Path) -> NDArray[np.int64]:
        numbers = read_classes(path) if path.suffix == ".png" else read_plane(path)
        void = np.isin(numbers, self.ignore)
        wrong = ~void & ~((numbers >= self.first) & (numbers < self.first + self.count) & (numbers == np.rint(numbers)))
        if wrong.any():
            raise DataError(
                f"{path}: found {numbers[wrong][0]}; expected a class from {self.first} to "
                f"{self.first + self.count - 1}, or {_listed(self.ignore)} where it is not annotated (see classes, "
                f"first and ignore in the description)"
            )
        return np.where(void, IGNORE, numbers - self.first).astype(np.int64)


@dataclass(frozen=True)
class YesNo:
    """Reads a .png (greyscale) or an .npy as (1, H, W) float32: 1 where a value is larger than `above`, 255 void."""

    above: float
    ignore: tuple[float, ...]

    def __call__(self, path: Path) -> NDArray[np.float32]:
        values = read_grey(path) if path.suffix == ".png" else read_plane(path)
        void = _among(values, self.ignore)
        if np.isnan(values[~void]).any():
            raise DataError(f"{path}: found nan; expected numbers, or `ignore: .nan` in the description")
        return np.where(void, IGNORE, values > self.above).astype(np.float32)[None]


@dataclass(frozen=True)
class Units:
    """Reads a .png of 16 bits or an .npy as (1, H, W) float32, `scale` for each unit, 0 void."""

    scale: float
    ignore: tuple[float, ...]

    def __call__(self, path: Path) -> NDArray[np.float32]:
        values = read_grey16(path) if path.suffix == ".png" else read_plane(path)
        return np.where(_among(values, self.ignore), 0, values * self.scale).astype(np.float32)[None]


@dataclass(frozen=True)
class Axes:
    """Reads normals of a .png (n = p / 127.5 - 1) or an .npy (H, W, 3), whose components point where `axes` say."""

    axes: tuple[str, ...]

    def __call__(self, path: Path) -> NDArray[np.float32]:
        stored = read_normals(path)
        normals = np.empty_like(stored)
        for component, direction in zip(stored, self.axes, strict=True):
            place, sign = DIRECTIONS[direction]
            normals[place] = sign * component
        return normals


def _among(values: NDArray[Any], ignore: tuple[float, ...]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = np.isin(values, [value for value in ignore if not math.isnan(value)])
    return found | np.isnan(values) if any(math.isnan(value) for value in ignore) else found


def _listed(values: tuple[int, ...]) -> str:
    return " or ".join(map(str, values)) or "nothing"
