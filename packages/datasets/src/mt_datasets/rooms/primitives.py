"""Convex primitives for ray casting: planes, boxes, ellipsoids and frustums, each in its own unit coordinates.

World frame: metres, y up, right-handed. A primitive maps a world point p to unit coordinates q = axes @ (p - centre)
/ half, in which a box is the cube |q| <= 1, an ellipsoid the unit ball, a frustum stands on y = -1 with radius 1, and
a plane is y = 0. Affine maps keep the ray parameter, so one found in unit coordinates holds in the world.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mt_datasets.rooms.textures import Material

Array = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]
Bools = NDArray[np.bool_]
Triple = tuple[float, float, float]


class Shape(Protocol):
    """A convex solid in unit coordinates; arrays have their three coordinates first."""

    @property
    def bounded(self) -> bool:
        """Whether the solid lies in the unit cube."""

    def enter(self, origin: Array, direction: Array) -> tuple[Array, Bools]:
        """Ray parameter at which rays from outside enter the solid, and whether they do so at all, ahead of the origin.

        (3, ...) -> (...), (...); the parameter of a ray that misses means nothing. The caller silences warnings.
        """

    def surface(self, q: Array, half: Array) -> tuple[Array, Ints]:
        """Outward unit normals (3, n) in the primitive's axes and numbers of the faces (n,), below 8, at q (3, n)."""

    def unroll(self, q: Array, half: Array, face: Ints) -> tuple[Array, Array]:
        """Texture coordinates u and v (n,) in metres at surface points q (3, n), of a primitive of half sizes (3,)."""


@dataclass(frozen=True)
class Plane:
    """The half-space y <= 0: a floor, wall or ceiling seen from its positive side. One face."""

    bounded: bool = False

    def enter(self, origin: Array, direction: Array) -> tuple[Array, Bools]:
        t = -origin[1] / direction[1]
        return t, t > 0

    def surface(self, q: Array, half: Array) -> tuple[Array, Ints]:
        normal = np.zeros_like(q)
        normal[1] = 1
        return normal, np.zeros(q.shape[1], np.int64)

    def unroll(self, q: Array, half: Array, face: Ints) -> tuple[Array, Array]:
        return q[0] * half[0], q[2] * half[2]


@dataclass(frozen=True)
class Box:
    """The cube |x|, |y|, |z| <= 1. Faces 0 to 5: -x, +x, -y, +y, -z, +z."""

    bounded: bool = True

    def enter(self, origin: Array, direction: Array) -> tuple[Array, Bools]:
        inverse = 1 / direction
        low, high = (-1 - origin) * inverse, (1 - origin) * inverse  # the two crossings of each slab
        near = np.minimum(low, high).max(axis=0)
        far = np.maximum(low, high).min(axis=0)
        return near, (near <= far) & (near > 0)

    def surface(self, q: Array, half: Array) -> tuple[Array, Ints]:
        x, y, z = np.abs(q)
        axis = np.where(x >= np.maximum(y, z), 0, np.where(y >= z, 1, 2))  # that of the coordinate nearest to +-1
        normal = np.sign(q) * (axis == [[0], [1], [2]])
        return normal, 2 * axis + (normal.sum(axis=0) > 0)

    def unroll(self, q: Array, half: Array, face: Ints) -> tuple[Array, Array]:
        x, y, z = q * half[:, None]
        return np.where(face < 2, z, x), np.where(face // 2 == 1, z, y)


@dataclass(frozen=True)
class Ellipsoid:
    """The unit ball. One face."""

    bounded: bool = True

    def enter(self, origin: Array, direction: Array) -> tuple[Array, Bools]:
        a = (direction * direction).sum(axis=0)
        b = (origin * direction).sum(axis=0)
        c = (origin * origin).sum(axis=0) - 1
        t = -(b + np.sqrt(b * b - a * c)) / a  # NaN where the ray misses, and NaN > 0 is false
        return t, t > 0

    def surface(self, q: Array, half: Array) -> tuple[Array, Ints]:
        return unit(q / half[:, None]), np.zeros(q.shape[1], np.int64)

    def unroll(self, q: Array, half: Array, face: Ints) -> tuple[Array, Array]:
        return np.arctan2(q[0], q[2]) * half[0], q[1] * half[1]


@dataclass(frozen=True)
class Frustum:
    """A cylinder or cut cone, -1 <= y <= 1, of radius 1 at the bottom, `taper` at the top. Faces: side, bottom, top."""

    taper: float = 1.0
    bounded: bool = True

    @property
    def slope(self) -> float:
        """Change of the radius per unit of y."""
        return (self.taper - 1) / 2

    def radius(self, y: Array) -> Array:
        """Radius at height y."""
        return 1 + self.slope * (y + 1)

    def enter(self, origin: Array, direction: Array) -> tuple[Array, Bools]:
        (ox, oy, oz), (dx, dy, dz) = origin, direction
        radius, growth = self.radius(oy), self.slope * dy
        a = dx * dx + dz * dz - growth * growth
        b = ox * dx + oz * dz - radius * growth
        c = ox * ox + oz * oz - radius * radius
        t = -(b + np.sqrt(b * b - a * c)) / a  # the inward crossing; NaN where the ray misses the whole cone
        side = (np.abs(oy + t * dy) <= 1) & (t > 0)
        end = np.copysign(1, oy)  # only the end on the origin's side can be entered, and only from beyond it
        to_end = (end - oy) / dy
        x, z = ox + to_end * dx, oz + to_end * dz
        cap = (x * x + z * z <= self.radius(end) ** 2) & (to_end > 0) & (np.abs(oy) > 1)
        return np.where(side, t, to_end), side | cap

    def surface(self, q: Array, half: Array) -> tuple[Array, Ints]:
        radius = self.radius(q[1])
        side = np.abs(np.hypot(q[0], q[2]) - radius) < 1 - np.abs(q[1])
        up = q[1] > 0
        lateral = np.stack([q[0], -self.slope * radius, q[2]])
        gradient = np.where(side, lateral, 0.0)
        gradient[1] = np.where(side, gradient[1], np.where(up, 1, -1))
        return unit(gradient / half[:, None]), np.where(side, 0, 1 + up)

    def unroll(self, q: Array, half: Array, face: Ints) -> tuple[Array, Array]:
        side = face == 0
        u = np.where(side, np.arctan2(q[0], q[2]), q[0]) * half[0]
        return u, np.where(side, q[1] * half[1], q[2] * half[2])


def unit(vectors: Array) -> Array:
    """Vectors (3, n) scaled to length 1."""
    return np.asarray(vectors / np.sqrt((vectors * vectors).sum(axis=0)))


@dataclass(frozen=True)
class Primitive:
    """A shape in the world: turned by `tilt` about its x axis, by `yaw` about the vertical (radians), then moved."""

    shape: Shape
    centre: Triple
    half: Triple
    material: Material
    yaw: float = 0.0
    tilt: float = 0.0
    casts: bool = True  # whether it throws a shadow

    def moved(self, centre: Triple, yaw: float) -> Primitive:
        """The same primitive in another place."""
        return Primitive(self.shape, centre, self.half, self.material, yaw, self.tilt, self.casts)


@dataclass(frozen=True)
class Frames:
    """The frames of P primitives in arrays: centre and half (P, 3), axes (P, 3, 3) with the local axes as rows."""

    centre: Array
    half: Array
    axes: Array

    @classmethod
    def of(cls, primitives: tuple[Primitive, ...]) -> Frames:
        """Collects the frames of primitives."""
        yaw = np.array([p.yaw for p in primitives])
        tilt = np.array([p.tilt for p in primitives])
        cy, sy, ct, st = np.cos(yaw), np.sin(yaw), np.cos(tilt), np.sin(tilt)
        rows = [cy, 0 * cy, -sy, st * sy, ct, st * cy, ct * sy, -st, ct * cy]
        return cls(
            np.array([p.centre for p in primitives]),
            np.array([p.half for p in primitives]),
            np.stack(rows, axis=-1).reshape(-1, 3, 3),
        )

    @cached_property
    def to_unit(self) -> Array:
        """Linear part of the map from the world to unit coordinates, (P, 3, 3)."""
        return self.axes / self.half[:, :, None]

    @cached_property
    def corners(self) -> Array:
        """Corners of the primitives' oriented bounding boxes, (P, 8, 3)."""
        signs = np.stack(np.meshgrid([-1, 1], [-1, 1], [-1, 1]), axis=-1).reshape(8, 3)
        return np.asarray(self.centre[:, None] + (signs * self.half[:, None]) @ self.axes)

    def distance(self, points: Array) -> Array:
        """Distance from points (n, 3) to the primitives' oriented bounding boxes, (n, P); 0 inside."""
        local = np.einsum("pij,npj->npi", self.axes, points[:, None] - self.centre)
        return np.asarray(np.linalg.norm(np.maximum(np.abs(local) - self.half, 0), axis=-1))
