"""A scene to render: primitives, the objects and classes they belong to, lights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mt_datasets.rooms.primitives import Array, Frames, Ints, Primitive, Triple
from mt_datasets.rooms.textures import Colour, Texture

CLASSES = (
    "floor", "wall", "ceiling", "window", "door", "picture", "rug",
    "table", "chair", "sofa", "bed", "cabinet", "lamp", "object",
)  # fmt: skip
THINGS = CLASSES[7:]  # what can be salient: furniture and objects, not the room's shell and what lies flat on it


@dataclass(frozen=True)
class Light:
    """A round area light: position (metres), intensity per colour, radius (metres)."""

    position: Triple
    intensity: Colour
    radius: float


@dataclass(frozen=True)
class Scene:
    """A room of size (x, y, z) metres: x in +-size[0] / 2, y in 0 to size[1], z in +-size[2] / 2.

    `owners[p]` is the object that primitive p belongs to, `classes[o]` the class of object o. The rest concerns the
    picture only: ambient light, exposure (mean linear luminance), standard deviation of the sensor's noise and that
    noise's seed.
    """

    size: Triple
    primitives: tuple[Primitive, ...]
    owners: tuple[int, ...]
    classes: tuple[int, ...]
    lights: tuple[Light, ...]
    ambient: Colour
    exposure: float
    noise: float
    noise_seed: int

    @cached_property
    def frames(self) -> Frames:
        """The primitives' frames in arrays."""
        return Frames.of(self.primitives)

    @cached_property
    def bounded(self) -> NDArray[np.bool_]:
        """Which primitives are solid things, not the planes of the shell."""
        return np.array([p.shape.bounded for p in self.primitives])

    @cached_property
    def casters(self) -> Ints:
        """The primitives that throw shadows."""
        return np.flatnonzero(self.bounded & np.array([p.casts for p in self.primitives]))

    @cached_property
    def textures(self) -> tuple[list[Texture | None], Ints]:
        """The distinct textures, and the place in this list of each primitive's."""
        place: dict[Texture | None, int] = {}
        kinds = [place.setdefault(p.material.texture, len(place)) for p in self.primitives]
        return list(place), np.array(kinds)

    @cached_property
    def looks(self) -> Array:
        """The primitives' materials in a float32 table (11, P).

        Its rows: colour (3), second colour less colour (3), period, offset (2), gloss, emission.
        """
        materials = [p.material for p in self.primitives]
        rows = [(*m.colour, *m.second, m.period, *m.offset, m.gloss, m.emission) for m in materials]
        table = np.array(rows, np.float32).T.copy()
        table[3:6] -= table[:3]
        return table
