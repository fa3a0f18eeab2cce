"""Shadow rays: which of the seen points the lights reach, with soft borders since lights are discs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mt_datasets.rooms.primitives import Array, Ints
from mt_datasets.rooms.scene import Light, Scene

TILE = 12  # side of the square blocks of pixels that are tested together, a multiple of 3 for the pattern of `disc`
CLEARANCE = 2e-3  # share of the way from light to point in which an occluder is the point's own surface
ORDER = [0, 5, 7, 3, 8, 1, 6, 2, 4]  # scatters the disc's points over 3 x 3 pixels


def reached(scene: Scene, points: Array, surface: Ints) -> Array:
    """Share of each light that gets to the seen points: (lights, H, W); points (3, H, W), surface numbers (H, W).

    Every pixel sends one ray, to one of nine points of the light; neighbours on the same surface send theirs to the
    others.
    """
    height, width = surface.shape
    blocks = _blocks(points)  # (3, B, TILE * TILE)
    dark = [_unblocks(_dark(scene, light, blocks), height, width) for light in scene.lights]
    return 1 - smooth(np.stack(dark).astype(np.float32), surface)


def smooth(values: Array, surface: Ints) -> Array:
    """Mean over those of the 3 x 3 pixels around that show the same surface, (..., H, W)."""
    height, width = surface.shape
    padded = np.pad(values, [(0, 0)] * (values.ndim - 2) + [(1, 1)] * 2)
    same = np.pad(surface, 1, constant_values=-1)
    total, count = np.zeros_like(values), np.zeros(surface.shape, values.dtype)
    for i in range(3):
        for j in range(3):
            alike = (same[i : i + height, j : j + width] == surface).astype(values.dtype)
            total += padded[..., i : i + height, j : j + width] * alike
            count += alike
    return total / count


def disc(light: Light) -> Array:
    """Displacements (3, TILE * TILE) of a light within its level disc, nine different ones in each 3 x 3 pixels."""
    radius, angle = np.sqrt((np.arange(9) + 0.5) / 9), np.arange(9) * 2.399963  # a sunflower's even spread
    points = light.radius * radius * np.stack([np.cos(angle), 0 * angle, np.sin(angle)])  # (3, 9)
    pattern = np.tile(points[:, ORDER].reshape(3, 3, 3), (1, TILE // 3, TILE // 3))
    return pattern.reshape(3, -1).astype(np.float32)


def _dark(scene: Scene, light: Light, blocks: Array) -> Array:
    """Whether something stands between the points (3, B, TILE * TILE) and the light: (B, TILE * TILE)."""
    position, offset = np.array(light.position), disc(light)
    rays = blocks - position.astype(np.float32)[:, None, None]
    rays -= offset[:, None]
    dark = np.zeros(blocks.shape[1:], bool)
    to_unit = scene.frames.to_unit.astype(np.float32)
    origin = (to_unit @ (position - scene.frames.centre)[:, :, None] + to_unit @ offset).astype(np.float32)  # (P, 3, T)
    with np.errstate(divide="ignore", invalid="ignore"):
        for index, chosen in _shadowed(scene, light, blocks):
            direction = to_unit[index] @ rays.take(chosen, axis=1).reshape(3, -1)
            t, hit = scene.primitives[index].shape.enter(origin[index, :, None], direction.reshape(3, -1, TILE * TILE))
            dark[chosen] |= hit & (t < 1 - CLEARANCE)
    return dark


def _shadowed(scene: Scene, light: Light, blocks: Array) -> Iterator[tuple[int, Ints]]:
    """For each primitive that throws a shadow, the blocks where it may fall; the others need no rays."""
    casters, position = scene.casters, np.array(light.position)
    half = scene.frames.half[casters, :, None]
    low, high = blocks.min(axis=2).T, blocks.max(axis=2).T  # (B, 3)
    middle, size = (low + high) / 2 - position, np.linalg.norm(high - low, axis=1) / 2  # a ball around each block
    distance = np.linalg.norm(middle, axis=1)
    nearest = scene.frames.distance(position[None])[0, casters]
    # Seen from the light, the block's ball must touch a cone around the caster, and not lie before it.
    towards = _unit(scene.frames.centre[casters] - position)  # (casters, 3)
    corners = _unit(scene.frames.corners[casters] - position)  # (casters, 8, 3)
    wide = np.arccos(np.clip((corners @ towards[:, :, None])[..., 0], -1, 1)).max(axis=1)
    wide = np.where(wide < 1.5, wide, np.pi) + _half_angle(light.radius, nearest)
    between = np.arccos(np.clip(towards @ _unit(middle).T, -1, 1))  # (casters, B)
    met = between <= wide[:, None] + _half_angle(size, distance)
    met &= nearest[:, None] - light.radius < distance + size
    # Nor does a shadow fall where all the way from the light stays on one side of the caster's box.
    begin = scene.frames.axes[casters] @ (position - scene.frames.centre[casters])[:, :, None]  # (casters, 3, 1)
    end = begin + scene.frames.axes[casters] @ middle.T  # (casters, 3, B)
    met &= (np.maximum(begin + light.radius, end + size) > -half).all(axis=1)
    met &= (np.minimum(begin - light.radius, end - size) < half).all(axis=1)
    for caster in np.flatnonzero(met.any(axis=1)):
        yield int(casters[caster]), np.flatnonzero(met[caster])


def _unit(vectors: Array) -> Array:
    """Vectors (..., 3) made one metre long."""
    unit: Array = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
    return unit


def _half_angle(radius: Array | float, distance: Array) -> Array:
    """Angular radius of a ball seen from a distance; all directions when seen from inside."""
    return np.where(radius < distance, np.arcsin(np.minimum(radius / np.maximum(distance, 1e-9), 1)), np.pi)


def _blocks(points: Array) -> Array:
    """(3, H, W) -> (3, B, TILE * TILE) in float32, the last row and column repeated to whole blocks."""
    height, width = points.shape[1:]
    rows, columns = -(-height // TILE), -(-width // TILE)
    padding = ((0, 0), (0, rows * TILE - height), (0, columns * TILE - width))
    padded = np.pad(points.astype(np.float32), padding, mode="edge")
    return padded.reshape(3, rows, TILE, columns, TILE).swapaxes(2, 3).reshape(3, rows * columns, TILE * TILE)


def _unblocks(values: Array, height: int, width: int) -> Array:
    """(B, TILE * TILE) -> (H, W), the reverse."""
    rows, columns = -(-height // TILE), -(-width // TILE)
    whole = values.reshape(rows, columns, TILE, TILE).swapaxes(1, 2).reshape(rows * TILE, columns * TILE)
    return whole[:height, :width]
