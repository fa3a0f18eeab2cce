"""Random materials: woods, paints, fabrics, floors, walls; new ones for every object, so that colour tells no class."""

from __future__ import annotations

import colorsys

from numpy.random import Generator

from mt_datasets.rooms import textures
from mt_datasets.rooms.textures import Colour, Material, Texture

Range = tuple[float, float]


def colour(rng: Generator, hue: Range = (0, 1), saturation: Range = (0.1, 0.6), value: Range = (0.3, 0.9)) -> Colour:
    """A colour drawn in HSV, as linear reflectance (display values squared)."""
    drawn = zip((hue, saturation, value), rng.random(3), strict=True)
    r, g, b = colorsys.hsv_to_rgb(*(low + (high - low) * share for (low, high), share in drawn))
    return r * r, g * g, b * b


def scaled(base: Colour, factor: float) -> Colour:
    """A colour made darker or lighter."""
    r, g, b = base
    return min(r * factor, 0.95), min(g * factor, 0.95), min(b * factor, 0.95)


def textured(
    rng: Generator, base: Colour, second: Colour, texture: Texture, period: float, gloss: float = 0.0
) -> Material:
    """A material whose texture starts anywhere."""
    u, v = rng.uniform(0, 50, 2)
    return Material(base, second, texture, period, (u, v), gloss)


def wood(rng: Generator) -> Material:
    """Wood with its grain, from birch to walnut."""
    base = colour(rng, (0.04, 0.11), (0.3, 0.65), (0.35, 0.85))
    return textured(rng, base, scaled(base, 0.5), textures.grain, 0.12, 0.15)


def paint(rng: Generator) -> Material:
    """Evenly painted or lacquered, one in three strongly coloured."""
    base = colour(rng, saturation=(0.35, 0.75) if rng.random() < 0.33 else (0, 0.3), value=(0.2, 0.95))
    return Material(base, base, gloss=0.2)


def trim(rng: Generator) -> Material:
    """Frames and skirting boards: off-white, wood or painted."""
    if rng.random() < 0.55:
        base = colour(rng, (0.05, 0.2), (0, 0.1), (0.8, 0.97))
        return Material(base, base, gloss=0.2)
    return timber(rng)


def timber(rng: Generator) -> Material:
    """What furniture is made of: wood more often than paint."""
    return wood(rng) if rng.random() < 0.65 else paint(rng)


def metal(rng: Generator) -> Material:
    """Grey, black or brass."""
    base = colour(rng, (0.08, 0.14), (0, 0.35), (0.15, 0.75))
    return Material(base, base, gloss=0.5)


FABRICS: tuple[tuple[Texture, Range, Range], ...] = (  # texture, period, second colour's brightness
    (textures.cloudy, (0.03, 0.08), (0.6, 0.8)),
    (textures.cloudy, (0.03, 0.08), (0.6, 0.8)),
    (textures.stripes, (0.06, 0.2), (0.35, 0.7)),
    (textures.checks, (0.08, 0.16), (0.35, 0.7)),
    (textures.dots, (0.07, 0.14), (0.35, 0.7)),
)


def fabric(rng: Generator) -> Material:
    """Plain, striped, checked or dotted cloth."""
    base = colour(rng, saturation=(0.35, 0.7) if rng.random() < 0.4 else (0.03, 0.35), value=(0.25, 0.95))
    texture, period, contrast = FABRICS[rng.integers(len(FABRICS))]
    return textured(rng, base, scaled(base, rng.uniform(*contrast)), texture, rng.uniform(*period))


def linen(rng: Generator) -> Material:
    """Light bedclothes."""
    base = colour(rng, saturation=(0, 0.2), value=(0.8, 0.97))
    return textured(rng, base, scaled(base, 0.85), textures.cloudy, 0.1)


FLOORS: tuple[tuple[Texture, Range, Range, float], ...] = (  # texture, saturation, period, gloss
    (textures.planks, (0.3, 0.65), (0.09, 0.18), 0.25),
    (textures.planks, (0.3, 0.65), (0.09, 0.18), 0.25),
    (textures.tiles, (0.02, 0.3), (0.3, 0.6), 0.35),
    (textures.checks, (0.02, 0.3), (0.3, 0.5), 0.35),
    (textures.cloudy, (0.05, 0.4), (0.02, 0.05), 0.0),
)


def floor(rng: Generator) -> Material:
    """Boards, tiles, chessboard tiles or carpet."""
    texture, saturation, period, gloss = FLOORS[rng.integers(len(FLOORS))]
    hue = (0.04, 0.12) if texture is textures.planks else (0, 1)
    base = colour(rng, hue, saturation, (0.4, 0.85))
    return textured(rng, base, scaled(base, rng.uniform(0.35, 0.6)), texture, rng.uniform(*period), gloss)


WALLS: tuple[tuple[Texture, Range, float], ...] = (  # texture, period, second colour's brightness
    (textures.cloudy, (0.3, 0.8), 0.92),
    (textures.cloudy, (0.02, 0.05), 0.88),
    (textures.stripes, (0.12, 0.4), 0.8),
    (textures.dots, (0.15, 0.3), 0.75),
    (textures.bricks, (0.08, 0.1), 0.6),
)


def wall(rng: Generator) -> Material:
    """Plaster, most of the time; else striped or dotted wallpaper or painted brick."""
    choice = rng.choice(len(WALLS), p=(0.45, 0.25, 0.14, 0.08, 0.08))
    texture, period, contrast = WALLS[choice]
    saturation, value = ((0.25, 0.5), (0.4, 0.8)) if rng.random() < 0.25 else ((0, 0.18), (0.7, 0.95))
    base = colour(rng, saturation=saturation, value=value)
    return textured(rng, base, scaled(base, contrast), texture, rng.uniform(*period))


def ceiling(rng: Generator) -> Material:
    """Off-white."""
    base = colour(rng, (0.05, 0.2), (0, 0.08), (0.85, 0.97))
    return textured(rng, base, scaled(base, 0.95), textures.cloudy, 0.3)


RUGS: tuple[tuple[Texture, Range], ...] = (
    (textures.cloudy, (0.04, 0.1)),
    (textures.bands, (0.08, 0.2)),
    (textures.checks, (0.2, 0.4)),
    (textures.rings, (0.2, 0.45)),
    (textures.dots, (0.2, 0.4)),
)


def carpet(rng: Generator) -> Material:
    """A rug's pattern, rings about its middle."""
    texture, period = RUGS[rng.integers(len(RUGS))]
    return Material(colour(rng), colour(rng, value=(0.25, 0.9)), texture, rng.uniform(*period))


def canvas(rng: Generator) -> Material:
    """A picture's painting."""
    choices = (textures.blotches, textures.rings, textures.bands, textures.outdoors)
    texture = choices[rng.integers(len(choices))]
    pair = colour(rng, saturation=(0.1, 0.8)), colour(rng, saturation=(0.1, 0.9), value=(0.1, 0.8))
    offset = (0.0, 0.0) if texture is textures.outdoors else tuple(rng.uniform(0, 0.5, 2))
    return Material(*pair, texture, rng.uniform(0.12, 0.3), (offset[0], offset[1]), 0.1)


def view(rng: Generator) -> Material:
    """A bright window pane with sky and trees behind it."""
    sky = colour(rng, (0.5, 0.62), (0.05, 0.35), (0.9, 1.0))
    trees = colour(rng, (0.2, 0.4), (0.2, 0.6), (0.3, 0.65))
    return Material(sky, trees, textures.outdoors, 0.9, (rng.uniform(0, 50), 0.0), emission=rng.uniform(0.9, 1.3))


def shade(rng: Generator) -> Material:
    """A glowing lamp shade."""
    base = colour(rng, (0.02, 0.15), (0.05, 0.45), (0.85, 1.0))
    return Material(base, base, emission=rng.uniform(0.6, 1.1))
