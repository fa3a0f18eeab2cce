"""Renders a room: the picture and its exact labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mt_datasets.rooms.camera import Camera
from mt_datasets.rooms.primitives import Array, Ints
from mt_datasets.rooms.raycast import cast, describe
from mt_datasets.rooms.sample import sample_camera, sample_scene
from mt_datasets.rooms.scene import CLASSES, THINGS, Scene
from mt_datasets.rooms.shade import shade

CENTRE = (
    0.35  # how far from the optical axis (tangent of the angle) things are salient: standard deviation of the weight
)
RIVAL = 0.6  # things with at least this share of the highest score are salient too
BLUR = 0.15  # share of each neighbour in the lens's blur, along rows and along columns


@dataclass(frozen=True)
class Frame:
    """A picture and its labels, all exact but for the picture's noise.

    image: uint8 (H, W, 3), display values. semseg: uint8 (H, W), index into CLASSES. depth: float32 (H, W), metres
    along the optical axis, positive everywhere. normals: float32 (H, W, 3), unit vectors in the camera's frame, x
    right, y up, z towards the camera. saliency: uint8 (H, W), 1 on the salient things. edges: uint8 (H, W), 1 on
    borders of surfaces.
    """

    image: NDArray[np.uint8]
    semseg: NDArray[np.uint8]
    depth: NDArray[np.float32]
    normals: NDArray[np.float32]
    saliency: NDArray[np.uint8]
    edges: NDArray[np.uint8]


def frame(seed: int, index: int, height: int, width: int) -> Frame:
    """Picture `index` of the endless set `seed` (both non-negative) at a size in pixels.

    The pair settles the room, the viewpoint and the noise; every size shows the same room. Raises ValueError for a
    size below 1.
    """
    rng = np.random.default_rng((seed, index))
    scene = sample_scene(rng)
    return render(scene, sample_camera(rng, scene), height, width)


def render(scene: Scene, camera: Camera, height: int, width: int) -> Frame:
    """What a camera sees of a scene at a size in pixels. Raises ValueError for a size below 1."""
    hits = cast(scene, camera, height, width)
    surfaces = describe(scene, camera, hits)
    owner = np.array(scene.owners)[hits.primitive]
    return Frame(
        image=develop(shade(scene, camera, hits, surfaces), scene),
        semseg=np.array(scene.classes, np.uint8)[owner],
        depth=hits.depth.astype(np.float32),
        normals=surfaces.facing,
        saliency=salient(scene, camera, owner),
        edges=borders(surfaces.number),
    )


def salient(scene: Scene, camera: Camera, owner: Ints) -> NDArray[np.uint8]:
    """1 on the most prominent things, from the object of every pixel (H, W).

    Each visible pixel of a thing (see THINGS) counts exp(-r^2 / (2 CENTRE^2)), r being the tangent of its angle from
    the optical axis; the thing with the highest sum is salient, and so is every other one with at least RIVAL of it.
    A picture that shows no thing has no salient pixel. Angles instead of pixels keep the choice the same under
    mirror, under quarter turns and, but for sampling, at every picture size.
    """
    x, y = camera.grid(*owner.shape)
    weight = np.exp(-(y * y) / (2 * CENTRE**2))[:, None] * np.exp(-(x * x) / (2 * CENTRE**2))
    score = np.bincount(owner.ravel(), weight.ravel(), len(scene.classes))
    score[np.array(scene.classes) < CLASSES.index(THINGS[0])] = 0
    prominent = ((score > 0) & (score >= RIVAL * score.max())).astype(np.uint8)
    return np.asarray(prominent[owner])


def borders(surface: Ints) -> NDArray[np.uint8]:
    """1 on one-pixel-wide lines between surfaces, from the surface of every pixel (H, W).

    A surface is one face of one primitive (a curved side is one face), so a border is where the object changes, where
    one part of it hides another, or where its orientation breaks. Of two unlike neighbours (above, below, left,
    right) the one is marked whose surface comes later in the scene: furniture rather than the wall behind it,
    whichever side it is on.
    """
    edges = np.zeros(surface.shape, bool)
    edges[1:] |= surface[1:] > surface[:-1]
    edges[:-1] |= surface[:-1] > surface[1:]
    edges[:, 1:] |= surface[:, 1:] > surface[:, :-1]
    edges[:, :-1] |= surface[:, :-1] > surface[:, 1:]
    return edges.astype(np.uint8)


def develop(linear: Array, scene: Scene) -> NDArray[np.uint8]:
    """Linear light (H, W, 3) to display values: slight blur, soft shoulder, gamma 2, the sensor's noise."""
    padded = np.pad(linear, ((1, 1), (1, 1), (0, 0)), mode="edge")
    padded = padded[1:-1] * (1 - 2 * BLUR) + (padded[:-2] + padded[2:]) * BLUR
    linear = padded[:, 1:-1] * (1 - 2 * BLUR) + (padded[:, :-2] + padded[:, 2:]) * BLUR
    display = np.sqrt(linear / (1 + 0.25 * linear))
    display += scene.noise * np.random.default_rng(scene.noise_seed).standard_normal(display.shape, np.float32)
    return (np.clip(display, 0, 1) * 255 + 0.5).astype(np.uint8)
