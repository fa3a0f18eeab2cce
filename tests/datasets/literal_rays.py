"""A slow, obvious ray caster: one ray at a time, face by face, in metres. The oracle for the vectorised one."""

from __future__ import annotations

from math import cos, hypot, inf, sin, sqrt

import numpy as np

from mt_datasets.rooms import Camera, Scene
from mt_datasets.rooms.primitives import Array, Box, Ellipsoid, Frustum, Plane, Primitive

Contact = tuple[float, Array]  # ray parameter, outward normal in the primitive's own axes


def turn(primitive: Primitive) -> Array:
    """Columns: the primitive's own axes in the world, for a turn about x by tilt and then about y by yaw."""
    c, s = cos(primitive.tilt), sin(primitive.tilt)
    tilt = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    c, s = cos(primitive.yaw), sin(primitive.yaw)
    return np.asarray(np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) @ tilt)


def plane(shape: Plane, half: Array, o: Array, d: Array) -> list[Contact]:
    return [(-o[1] / d[1], np.array([0.0, 1.0, 0.0]))] if d[1] < 0 else []


def box(shape: Box, half: Array, o: Array, d: Array) -> list[Contact]:
    contacts = []
    for axis in range(3):
        for side in (-1, 1):
            if d[axis] != 0:
                t = (side * half[axis] - o[axis]) / d[axis]
                others = [k for k in range(3) if k != axis]
                if all(abs(o[k] + t * d[k]) <= half[k] for k in others):
                    contacts.append((t, side * np.eye(3)[axis]))
    return contacts


def ellipsoid(shape: Ellipsoid, half: Array, o: Array, d: Array) -> list[Contact]:
    u, v = o / half, d / half
    return [(t, (o + t * d) / half**2) for t in roots(float(v @ v), float(2 * u @ v), float(u @ u - 1))]


def frustum(shape: Frustum, half: Array, o: Array, d: Array) -> list[Contact]:
    radius, height = half[0], half[1]
    top = radius * shape.taper
    contacts = []
    for y, r, normal in ((-height, radius, -1.0), (height, top, 1.0)):
        t = (y - o[1]) / d[1] if d[1] else inf
        if t < inf and hypot(o[0] + t * d[0], o[2] + t * d[2]) <= r:
            contacts.append((t, np.array([0, normal, 0])))
    steep = (top - radius) / (2 * height)  # the radius at height y is middle + steep * y
    middle = (top + radius) / 2 + steep * o[1]
    a = d[0] ** 2 + d[2] ** 2 - (steep * d[1]) ** 2
    b = 2 * (o[0] * d[0] + o[2] * d[2] - middle * steep * d[1])
    c = o[0] ** 2 + o[2] ** 2 - middle**2
    for t in roots(a, b, c):
        x, y, z = o + t * d
        if abs(y) <= height:
            around, along = np.array([z, 0, -x]) / hypot(x, z), np.array([steep * x, hypot(x, z), steep * z])
            contacts.append((t, np.cross(around, along)))
    return contacts


def roots(a: float, b: float, c: float) -> list[float]:
    """Real roots of a t^2 + b t + c."""
    square = b * b - 4 * a * c
    return [] if square < 0 else [(-b - sqrt(square)) / (2 * a), (-b + sqrt(square)) / (2 * a)]


CONTACTS = {Plane: plane, Box: box, Ellipsoid: ellipsoid, Frustum: frustum}


def meet(primitive: Primitive, origin: Array, direction: Array) -> tuple[float, Array]:
    """First contact ahead of a ray with a primitive: ray parameter (infinite for none) and outward unit normal."""
    axes = turn(primitive)
    o, d = axes.T @ (origin - np.array(primitive.centre)), axes.T @ direction
    contacts = CONTACTS[type(primitive.shape)](primitive.shape, np.array(primitive.half), o, d)  # type: ignore[operator]
    t, normal = min(((t, n) for t, n in contacts if t > 0), key=lambda c: c[0], default=(inf, np.zeros(3)))
    return t, axes @ normal / max(float(np.linalg.norm(normal)), 1e-12)


def ray(camera: Camera, height: int, width: int, i: int, j: int) -> Array:
    """The ray of a pixel, as long as its depth."""
    right, top, back = camera.rotation
    x, y = (j + 0.5 - width / 2) / (camera.focal * height), (height / 2 - i - 0.5) / (camera.focal * height)
    return np.asarray(x * right + y * top - back)


def look(scene: Scene, camera: Camera, height: int, width: int) -> tuple[Array, Array, Array]:
    """Depth, primitive and normal in the camera's frame of every pixel."""
    depth, seen, normals = np.full((height, width), inf), np.zeros((height, width), int), np.zeros((height, width, 3))
    for i in range(height):
        for j in range(width):
            direction = ray(camera, height, width, i, j)
            for index, primitive in enumerate(scene.primitives):
                t, normal = meet(primitive, camera.position, direction)
                if t < depth[i, j]:
                    depth[i, j], seen[i, j], normals[i, j] = t, index, camera.rotation @ normal
    return depth, seen, normals


def hidden(scene: Scene, point: Array, light: Array) -> bool:
    """Whether something that throws shadows stands between a point and a light."""
    return any(
        meet(primitive, light, point - light)[0] < 1 - 2e-3
        for primitive in scene.primitives
        if primitive.casts and primitive.shape.bounded
    )
