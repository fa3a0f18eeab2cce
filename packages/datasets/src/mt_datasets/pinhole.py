"""Surface normals from a depth map and its camera: planes fitted to a window around every pixel."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

STEPS = (-3, -2, -1, 0, 1, 2, 3)  # from a pixel to its neighbours, along both axes
STEP = 3 / 480  # of the picture's height, but at least a pixel
NEAR = 0.05  # a neighbour belongs to the pixel's surface when its depth differs by at most this share
FEWEST = 4  # neighbours that a plane is fitted to, itself included


@dataclass(frozen=True)
class Pinhole:
    """A camera without distortion, for pictures of `size` (height, width).

    Attributes:
        focal: focal length in pixels, (x, y).
        centre: where the optical axis meets the picture, in pixels (x, y), the first pixel's middle being 0.
    """

    size: tuple[int, int]
    focal: tuple[float, float]
    centre: tuple[float, float]

    def rays(self, height: int, width: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The same view at another size: x / z of each column (W,), to the right, and y / z of each row (H,), down."""
        x = (np.arange(width) + 0.5) * self.size[1] / width - 0.5
        y = (np.arange(height) + 0.5) * self.size[0] / height - 0.5
        return (x - self.centre[0]) / self.focal[0], (y - self.centre[1]) / self.focal[1]


def normals_from_depth(depth: NDArray[np.float32], camera: Pinhole) -> NDArray[np.float32]:
    """Unit normals (3, H, W), x right, y up, z towards the camera, of depth (H, W) along the optical axis, 0 missing.

    A plane a X + b Y + c Z = 1 is seen as 1 / Z = a x + b y + c on the rays (x, y, 1), so the least-squares fit of
    inverse depth over a window gives the plane, exactly where there is one; and a depth sensor that measures disparity
    has even noise there. (0, 0, 0) where depth is missing or too few neighbours are on the same surface.
    """
    height, width = depth.shape
    step = max(1, round(STEP * height))
    reach = step * max(STEPS)
    inverse = np.divide(1, depth, out=np.zeros_like(depth), where=depth > 0)
    padded = np.pad(inverse, reach)
    sums = np.zeros((9, height, width), np.float32)
    for v, u in product(STEPS, STEPS):
        top, left = reach + step * v, reach + step * u
        q = padded[top : top + height, left : left + width]
        # |1 / q - 1 / inverse| <= NEAR / inverse without a division; what is missing is near nothing
        near = (np.abs(q - inverse) <= NEAR * q) & (q > 0) & (inverse > 0)
        weight = near.astype(np.float32)
        value = weight * q
        for total, factor, term in zip(
            sums, (1, u, v, u * u, u * v, v * v, 1, u, v), (*[weight] * 6, *[value] * 3), strict=True
        ):
            if factor:
                total += factor * term
    x, y = camera.rays(height, width)
    return _facing(_slopes(sums), sums[0] >= FEWEST, step, x, y)


def _slopes(sums: NDArray[np.float32]) -> tuple[NDArray[np.float64], ...]:
    """The least-squares plane of inverse depth from its sums: its rise per step along x and y, its value at the middle.

    sums: over the neighbours, of 1, u, v, uu, uv, vv, q, uq, vq; u and v are steps, q is inverse depth.
    """
    n, u, v, uu, uv, vv, q, uq, vq = sums.astype(np.float64)
    n = np.maximum(n, 1)
    mu, mv, mq = u / n, v / n, q / n
    suu, suv, svv = uu / n - mu * mu, uv / n - mu * mv, vv / n - mv * mv
    suq, svq = uq / n - mu * mq, vq / n - mv * mq
    determinant = suu * svv - suv * suv
    flat = determinant < 1e-6  # the neighbours stand in one line
    determinant[flat] = 1
    along_x, along_y = (svv * suq - suv * svq) / determinant, (suu * svq - suv * suq) / determinant
    return along_x, along_y, np.where(flat, 0, mq - along_x * mu - along_y * mv)


def _facing(
    slopes: tuple[NDArray[np.float64], ...],
    known: NDArray[np.bool_],
    step: int,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
) -> NDArray[np.float32]:
    """The plane's normal, turned towards the camera; its axes are those of the label, of which y points up."""
    a, b = (slope / (step * _spacing(axis)) for slope, axis in zip(slopes[:2], (x, y), strict=True))
    c = slopes[2] - a * x - b * y[:, None]
    known = known & (slopes[2] > 0)
    normals = np.stack([-a, b, c])  # away from the camera it is (a, b, c) with y down and z away
    normals *= known / np.maximum(np.sqrt((normals * normals).sum(0)), 1e-12)
    return normals.astype(np.float32)


def _spacing(axis: NDArray[np.float64]) -> float:
    return float(axis[1] - axis[0]) if len(axis) > 1 else 1.0
