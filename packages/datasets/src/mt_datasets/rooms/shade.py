"""Colours the seen points: textures, ambient light, Lambert and Phong terms of the lights, exposure."""

from __future__ import annotations

import numpy as np

from mt_datasets.rooms.camera import Camera
from mt_datasets.rooms.primitives import Array
from mt_datasets.rooms.raycast import CHUNK, Hits, Surfaces, chunks
from mt_datasets.rooms.scene import Light, Scene
from mt_datasets.rooms.shadow import reached

CORNER = 0.35  # metres over which the corners of a room are darker


def shade(scene: Scene, camera: Camera, hits: Hits, surfaces: Surfaces) -> Array:
    """The picture in linear light, exposed, before the sensor: (H, W, 3) float32."""
    height, width = hits.depth.shape
    pixel = hits.depth.take(surfaces.order).astype(np.float32) / (camera.focal * height)
    colour, gloss, emission = _reflectance(scene, surfaces, pixel)
    shares = reached(scene, hits.points, surfaces.number).reshape(len(scene.lights), -1).take(surfaces.order, axis=1)
    picture = np.empty((height * width, 3), np.float32)
    for part in chunks(0, height * width, CHUNK):
        points, normals = surfaces.points[:, part], surfaces.normals[:, part]
        view = points - camera.position.astype(np.float32)[:, None]
        view /= np.sqrt((view * view).sum(axis=0))
        mirror = view - 2 * (view * normals).sum(axis=0) * normals
        light = np.array(scene.ambient, np.float32)[:, None] * _ambient(scene, points, normals)
        shine = np.zeros_like(light)
        for source, share in zip(scene.lights, shares, strict=True):
            diffuse, specular = _direct(source, points, normals, mirror)
            intensity = np.array(source.intensity, np.float32)[:, None] * share[part]
            light += intensity * diffuse
            shine += intensity * specular
        picture[surfaces.order[part]] = (colour[:, part] * (light + emission[part]) + shine * gloss[part]).T
    picture *= scene.exposure / np.minimum(picture[::7], 1).mean()
    return picture.reshape(height, width, 3)


def _reflectance(scene: Scene, surfaces: Surfaces, pixel: Array) -> tuple[Array, Array, Array]:
    """Colour (3, N), gloss (N,), emission (N,) of the sorted points; pixel (N,): the metres that a pixel spans there.

    Texture fades into its mean where a period shrinks to a pixel, as behind a lens.
    """
    looks = scene.looks[:, surfaces.sequence].repeat(np.diff(surfaces.start), axis=1)  # (11, N)
    textures, kinds = scene.textures
    bounds = surfaces.start[np.searchsorted(kinds[surfaces.sequence], np.arange(len(textures) + 1))]
    for texture, start, stop in zip(textures, bounds[:-1], bounds[1:], strict=True):
        for part in chunks(int(start), int(stop), CHUNK):
            if texture:
                u, v = surfaces.texture[:, part] / looks[6, part] + looks[7:9, part]
                sharp = np.minimum(looks[6, part] / (2 * pixel[part]), 1)
                looks[:3, part] += looks[3:6, part] * (0.4 + (texture(u, v) - 0.4) * sharp)
    return looks[:3], looks[9], looks[10]


def _ambient(scene: Scene, points: Array, normals: Array) -> Array:
    """Light from everywhere, a little more from above, less where planes of the room meet: (N,)."""
    wide, tall, deep = scene.size
    x, y, z = points
    apart = np.stack([wide / 2 - np.abs(x), np.minimum(y, tall - y), deep / 2 - np.abs(z)])
    dark = (np.exp(np.maximum(apart, 0) / -CORNER) * (1 - np.abs(normals))).sum(axis=0)
    return np.asarray((0.85 + 0.15 * normals[1]) * (1 - 0.3 * dark))


def _direct(light: Light, points: Array, normals: Array, mirror: Array) -> tuple[Array, Array]:
    """Lambert and Phong terms (N,) of an unhidden light whose strength falls off with the distance."""
    towards = np.array(light.position, np.float32)[:, None] - points
    square = (towards * towards).sum(axis=0)
    towards *= 1 / np.sqrt(square)
    fall = 2 / (1 + 0.5 * square)
    specular = np.maximum((towards * mirror).sum(axis=0), 0.1)  # small powers of less would be denormal, and slow
    for _ in range(4):  # to the power of 16
        specular *= specular
    return np.maximum((towards * normals).sum(axis=0), 0) * fall, specular * fall
