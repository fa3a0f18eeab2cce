"""Vectorised ray casting: what each pixel of a camera sees, and how the seen surfaces lie."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mt_datasets.rooms.camera import Camera
from mt_datasets.rooms.primitives import Array, Ints
from mt_datasets.rooms.scene import Scene

NEAR = 0.02  # metres: what is nearer than this to the camera's plane cannot be projected
CHUNK = 1 << 13  # points worked on together: their arrays stay in the cache
FACES = 8  # more than any primitive has
EDGES = np.array(
    [(a, a | bit) for bit in (1, 2, 4) for a in range(8) if not a & bit]
).T  # corners that a box's edges join


@dataclass(frozen=True)
class Hits:
    """What the pixels see, in float64: depth (H, W) along the optical axis and world point (3, H, W) in metres; and the
    index of the primitive (H, W).
    """

    depth: Array
    primitive: Ints
    points: Array


@dataclass(frozen=True)
class Surfaces:
    """How the seen surfaces lie, N = H * W.

    As pictures: `facing` (H, W, 3), unit normals in the camera's frame, and `number` (H, W), another one for each
    surface, that is each face of each primitive, higher for later primitives.

    Sorted by texture and primitive: flat pixel index `order` (N,), world points and unit normals (3, N), texture
    coordinates in metres (2, N); primitive `sequence[k]` begins at `start[k]`. All but the whole numbers are float32.
    """

    facing: Array
    number: Ints
    order: Ints
    sequence: Ints
    start: Ints
    points: Array
    normals: Array
    texture: Array


def chunks(start: int, stop: int, size: int) -> Iterator[slice]:
    """Cuts a range into slices of at most a size."""
    for first in range(start, stop, size):
        yield slice(first, min(first + size, stop))


def cast(scene: Scene, camera: Camera, height: int, width: int) -> Hits:
    """Nearest surface behind every pixel centre. Rays are as long as their depth, so the ray parameter is the depth."""
    x, y = camera.grid(height, width)
    right, top, back = camera.rotation
    to_unit = scene.frames.to_unit
    origin = (to_unit @ (camera.position - scene.frames.centre)[:, :, None])[..., None]  # (P, 3, 1, 1)
    across = (to_unit @ right)[:, :, None] * x  # (P, 3, W)
    down = (to_unit @ top)[:, :, None] * y - (to_unit @ back)[:, :, None]  # (P, 3, H)

    depth = np.full((height, width), np.inf)
    seen = np.full((height, width), -1, np.int16)
    with np.errstate(divide="ignore", invalid="ignore"):
        for index, rows, columns in _windows(scene, camera, x, y):
            direction = down[index, :, rows, None] + across[index, :, None, columns]  # (3, h, w)
            t, hit = scene.primitives[index].shape.enter(origin[index], direction)
            hit &= t < depth[rows, columns]
            depth[rows, columns][hit] = t[hit]
            seen[rows, columns][hit] = index
    points = (top[:, None] * y - back[:, None])[:, :, None] + (right[:, None] * x)[:, None, :]  # (3, H, W)
    points *= depth
    points += camera.position[:, None, None]
    return Hits(depth, seen, points)


def _windows(scene: Scene, camera: Camera, x: Array, y: Array) -> Iterator[tuple[int, slice, slice]]:
    """For each primitive that can be in the picture, the rows and columns that its bounding box spans, in chunks."""
    corners = (scene.frames.corners - camera.position) @ camera.rotation.T  # (P, 8, 3)
    start, end = corners[:, EDGES[0]], corners[:, EDGES[1]]  # (P, 12, 3)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (start[..., 2:] + NEAR) / (start[..., 2:] - end[..., 2:])  # where an edge meets the plane at NEAR
    clipped = start + np.clip(np.nan_to_num(share), 0, 1) * (end - start)
    outline = np.concatenate([corners, clipped], axis=1)  # (P, 20, 3)
    ahead = -outline[..., 2:]
    image = outline[..., :2] / np.maximum(ahead, 0.9 * NEAR)
    low = np.where(ahead >= 0.99 * NEAR, image, np.inf).min(axis=1)
    high = np.where(ahead >= 0.99 * NEAR, image, -np.inf).max(axis=1)
    # A plane of the shell is seen where rays run against its normal: if at all, then in a corner of the picture too.
    rays = np.array([[x[0], x[0], x[-1], x[-1]], [y[0], y[-1]] * 2, [-1] * 4])  # (3, 4)
    against = ((scene.frames.axes[:, 1] @ camera.rotation.T) @ rays).min(axis=1) < 0
    low[~scene.bounded] = np.where(against[~scene.bounded], -np.inf, np.inf)[:, None]
    high[~scene.bounded] = np.inf
    # One pixel of margin on each side: rounding must never cut a pixel off.
    left, right = np.searchsorted(x, low[:, 0]) - 1, np.searchsorted(x, high[:, 0]) + 1
    top, bottom = np.searchsorted(-y, -high[:, 1]) - 1, np.searchsorted(-y, -low[:, 1]) + 1
    for index in np.flatnonzero((low <= [x[-1], y[0]]).all(axis=1) & (high >= [x[0], y[-1]]).all(axis=1)):
        columns = slice(max(int(left[index]), 0), min(int(right[index]), len(x)))
        size = max(CHUNK // (columns.stop - columns.start), 1)
        for rows in chunks(max(int(top[index]), 0), min(int(bottom[index]), len(y)), size):
            yield int(index), rows, columns


def describe(scene: Scene, camera: Camera, hits: Hits) -> Surfaces:
    """Normals, faces and texture coordinates of the seen points, from the primitives they lie on."""
    frames, count, size = scene.frames, len(scene.primitives), hits.primitive.size
    sequence = scene.textures[1].argsort(kind="stable")
    place = sequence.argsort().astype(np.int16)[hits.primitive.ravel()]
    order = place.argsort(kind="stable")
    start = np.concatenate([[0], np.bincount(place, minlength=count).cumsum()])
    points, normals = np.empty((2, 3, size), np.float32)
    texture, face = np.empty((2, size), np.float32), np.empty(size, np.int32)
    for k in np.flatnonzero(np.diff(start)):
        index = sequence[k]
        shape, half, axes = scene.primitives[index].shape, frames.half[index], frames.axes[index]
        for part in chunks(int(start[k]), int(start[k + 1]), CHUNK):
            points[:, part] = exact = hits.points.reshape(3, -1).take(order[part], axis=1)
            q = axes @ (exact - frames.centre[index, :, None]) / half[:, None]
            normal, face[part] = shape.surface(q, half)
            normals[:, part] = axes.T @ normal
            if scene.primitives[index].material.texture:
                texture[0, part], texture[1, part] = shape.unroll(q, half, face[part])
    facing, number = np.empty((size, 3), np.float32), np.empty(size, np.int32)
    facing[order] = np.einsum("ij,jn->ni", camera.rotation.astype(np.float32), normals)
    number[order] = face + FACES * sequence.repeat(np.diff(start))
    shot = hits.primitive.shape
    return Surfaces(facing.reshape(*shot, 3), number.reshape(shot), order, sequence, start, points, normals, texture)
