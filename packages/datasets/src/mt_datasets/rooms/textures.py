"""Procedural textures: each blends a material's two colours over texture coordinates counted in periods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Texture = Callable[[Array, Array], Array]  # u, v (n,) -> blend (n,) in [0, 1]
Colour = tuple[float, float, float]  # linear RGB reflectance

_SIDE = 64
_LATTICE = np.random.default_rng(64).random(_SIDE * _SIDE, dtype=np.float32)


@dataclass(frozen=True)
class Material:
    """What a surface looks like: `colour` where the texture is 0, `second` where it is 1; the period is in metres."""

    colour: Colour
    second: Colour
    texture: Texture | None = None
    period: float = 1.0
    offset: tuple[float, float] = (0.0, 0.0)
    gloss: float = 0.0
    emission: float = 0.0


def lattice(i: Array, j: Array) -> Array:
    """A fixed pseudo-random number in [0, 1] for each pair of whole numbers."""
    row, column = i.astype(np.int32) & (_SIDE - 1), j.astype(np.int32) & (_SIDE - 1)
    return _LATTICE[row * _SIDE + column]


def noise(u: Array, v: Array) -> Array:
    """Smooth value noise, one lattice cell per period."""
    i, j = np.floor(u), np.floor(v)
    s, t = u - i, v - j
    s, t = s * s * (3 - 2 * s), t * t * (3 - 2 * t)
    row, column = i.astype(np.int32) & (_SIDE - 1), j.astype(np.int32) & (_SIDE - 1)
    below, right = ((row + 1) & (_SIDE - 1)) * _SIDE, (column + 1) & (_SIDE - 1)
    row *= _SIDE
    top = _LATTICE[row + column] * (1 - t) + _LATTICE[row + right] * t
    bottom = _LATTICE[below + column] * (1 - t) + _LATTICE[below + right] * t
    return top * (1 - s) + bottom * s


def cloudy(u: Array, v: Array) -> Array:
    """Two octaves of noise: plaster, carpet, fabric."""
    return 0.6 * noise(u, v) + 0.4 * noise(2.7 * u + 11, 2.7 * v + 5)


def grain(u: Array, v: Array) -> Array:
    """Wood grain along u."""
    return noise(0.35 * u, 4 * v + 0.8 * noise(0.6 * u, v))


def planks(u: Array, v: Array) -> Array:
    """Floor boards one period wide and seven long, each with its own tone, grain and dark joints."""
    row = np.floor(v)
    along = u / 7 + lattice(row, row + 7)
    cell = np.floor(along)
    joint = (v - row < 0.05) | (along - cell < 0.007)
    wood = 0.55 * lattice(row, cell) + 0.3 * noise(0.5 * u, 9 * v)
    return np.where(joint, 1, wood)


def tiles(u: Array, v: Array) -> Array:
    """Square tiles with light tone differences and dark grout."""
    i, j = np.floor(u), np.floor(v)
    grout = (u - i < 0.05) | (v - j < 0.05)
    return np.where(grout, 1, 0.2 * lattice(i, j) + 0.12 * noise(3 * u, 3 * v))


def checks(u: Array, v: Array) -> Array:
    """A chessboard."""
    return (np.floor(u) + np.floor(v)) % 2 * 0.9 + 0.1 * noise(4 * u, 4 * v)


def bricks(u: Array, v: Array) -> Array:
    """Bricks in running bond, one period high and three long."""
    row = np.floor(v)
    along = u / 3 + row / 2
    cell = np.floor(along)
    mortar = (v - row < 0.12) | (along - cell < 0.04)
    return np.where(mortar, 1, 0.5 * lattice(row, cell) + 0.25 * noise(2 * u, 2 * v))


def stripes(u: Array, v: Array) -> Array:
    """Upright stripes, one dark and one light per period."""
    return (u - np.floor(u) < 0.5).astype(u.dtype)


def bands(u: Array, v: Array) -> Array:
    """Level stripes of uneven width."""
    row = np.floor(v)
    return (lattice(row, row + 3) > 0.5).astype(u.dtype)


def dots(u: Array, v: Array) -> Array:
    """Round dots on a square grid."""
    x, y = u - np.floor(u) - 0.5, v - np.floor(v) - 0.5
    return (x * x + y * y < 0.08).astype(u.dtype)


def rings(u: Array, v: Array) -> Array:
    """Rings about the middle of the surface."""
    r = np.sqrt(u * u + v * v)
    return (r - np.floor(r) < 0.5).astype(u.dtype)


def spines(u: Array, v: Array) -> Array:
    """Backs of books of uneven tone and width, side by side."""
    cell = np.floor(u + 0.35 * np.sin(2.1 * u))
    return lattice(cell, cell + 9)


def blotches(u: Array, v: Array) -> Array:
    """Large smooth two-coloured areas: an abstract painting."""
    return (noise(u + 17, v + 31) > 0.5) * 0.7 + 0.3 * noise(3 * u, 3 * v)


def outdoors(u: Array, v: Array) -> Array:
    """A view: bright sky above 0 brightening to the horizon, dark rolling ground with trees below."""
    ground = v < 0.5 * noise(1.5 * u + 40, 0 * u) + 0.25 * noise(6 * u, 0 * u) - 0.35
    return np.where(ground, 0.75 + 0.25 * noise(8 * u, 8 * v), np.clip(0.12 * v, 0, 0.2))
