"""Lamps, rugs, small objects and what hangs on walls and ceilings, in the furniture's frame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.random import Generator

from mt_datasets.rooms import materials, textures
from mt_datasets.rooms.furniture import Piece, blob, block, column, flat
from mt_datasets.rooms.primitives import Primitive
from mt_datasets.rooms.textures import Material


def floor_lamp(rng: Generator) -> Piece:
    """A foot, a pole and a shade."""
    metal, height = materials.metal(rng), rng.uniform(1.35, 1.7)
    radius, tall = rng.uniform(0.16, 0.24), rng.uniform(0.22, 0.32)
    parts = [
        column(0, 0, 0, 0.15, 0.03, metal, 0.9),
        column(0, 0.03, 0, 0.016, height - tall, metal),
        *_shade(rng, height - tall, radius, tall),
    ]
    return Piece("lamp", parts, (radius, radius), height)


def table_lamp(rng: Generator) -> Piece:
    """A turned body with a shade."""
    body, foot = materials.paint(rng), rng.uniform(0.06, 0.09)
    tall, radius, stem = rng.uniform(0.15, 0.22), rng.uniform(0.11, 0.16), rng.uniform(0.16, 0.28)
    parts = [
        column(0, 0, 0, foot * 0.8, 0.02, body),
        blob(0, 0.01, 0, (foot, stem * 0.4, foot), body),
        column(0, stem * 0.6, 0, 0.015, stem * 0.5, body),
        *_shade(rng, stem, radius, tall),
    ]
    return Piece("lamp", parts, (radius, radius), stem + tall)


def _shade(rng: Generator, y: float, radius: float, height: float) -> list[Primitive]:
    """A glowing frustum that throws no shadow."""
    return flat([column(0, y, 0, radius, height, materials.shade(rng), rng.uniform(0.55, 1.0))])


def pendant(rng: Generator) -> Piece:
    """A lamp that hangs from y = 0 downwards: cord and shade, or a flat bowl."""
    drop, radius = rng.uniform(0.35, 0.6), rng.uniform(0.16, 0.28)
    if rng.random() < 0.35:
        bowl = blob(0, -0.1, 0, (radius, 0.1, radius), materials.shade(rng))
        return Piece("lamp", flat([bowl]), (radius, radius), 0.1)
    tall = radius * rng.uniform(0.7, 1.1)
    cord = column(0, tall - drop, 0, 0.008, drop - tall, materials.metal(rng))
    return Piece("lamp", [*flat([cord]), *_shade(rng, -drop, radius, tall)], (radius, radius), drop)


def rug(rng: Generator) -> Piece:
    """A flat rectangle or disc on the floor."""
    material = materials.carpet(rng)
    if rng.random() < 0.3:
        radius = rng.uniform(0.7, 1.1)
        return Piece("rug", flat([column(0, 0, 0, radius, 0.012, material)]), (radius, radius), 0.012)
    width, depth = rng.uniform(1.4, 2.4), rng.uniform(0.9, 1.6)
    return Piece("rug", flat([block(0, 0, 0, (width, 0.012, depth), material)]), (width / 2, depth / 2), 0.012)


def ball(rng: Generator) -> Piece:
    """A ball."""
    material, radius = materials.fabric(rng), rng.uniform(0.07, 0.16)
    return Piece("object", [blob(0, 0, 0, (radius, radius, radius), material)], (radius, radius), 2 * radius)


def vase(rng: Generator) -> Piece:
    """A belly, a neck and a lip."""
    base = materials.colour(rng, saturation=(0.1, 0.8), value=(0.2, 0.95))
    material = Material(base, base, gloss=0.6)
    radius, height = rng.uniform(0.05, 0.09), rng.uniform(0.16, 0.34)
    parts = [
        column(0, 0, 0, radius * 0.6, height * 0.4, material, 1.6),
        column(0, height * 0.4, 0, radius * 0.96, height * 0.35, material, 0.45),
        column(0, height * 0.75, 0, radius * 0.43, height * 0.25, material, 1.5),
    ]
    return Piece("object", parts, (radius, radius), height)


def carton(rng: Generator) -> Piece:
    """A box with a lid."""
    material = materials.paint(rng)
    width, height, depth = rng.uniform(0.14, 0.32), rng.uniform(0.1, 0.22), rng.uniform(0.12, 0.24)
    parts = [
        block(0, 0, 0, (width, height * 0.75, depth), material),
        block(0, height * 0.75, 0, (width + 0.012, height * 0.25, depth + 0.012), material),
    ]
    return Piece("object", parts, (width / 2 + 0.01, depth / 2 + 0.01), height)


def books(rng: Generator) -> Piece:
    """A pile of lying books."""
    parts, y = [], 0.0
    for _ in range(int(rng.integers(2, 5))):
        thick = rng.uniform(0.025, 0.045)
        size = rng.uniform(0.2, 0.26), thick, rng.uniform(0.14, 0.18)
        parts.append(replace(block(0, y, 0, size, materials.paint(rng)), yaw=rng.uniform(-0.3, 0.3)))
        y += thick
    return Piece("object", parts, (0.15, 0.13), y)


def plant(rng: Generator) -> Piece:
    """A pot and a crown of leaves."""
    size = rng.uniform(0.8, 1.2)
    green = materials.colour(rng, (0.22, 0.42), (0.3, 0.7), (0.3, 0.65))
    leaf = materials.textured(rng, green, materials.scaled(green, 0.5), textures.cloudy, 0.03)
    parts = [column(0, 0, 0, 0.07 * size, 0.14 * size, materials.paint(rng), 1.35)]
    for angle in np.arange(5) * 1.257 + rng.uniform(0, 1):
        reach, half = 0.055 * size, 0.065 * size
        x, z = reach * np.cos(angle), reach * np.sin(angle)
        parts.append(blob(x, (0.12 + rng.uniform(0, 0.09)) * size, z, (half, half * rng.uniform(1.1, 1.8), half), leaf))
    return Piece("object", parts, (0.13 * size, 0.13 * size), 0.4 * size)


def basket(rng: Generator) -> Piece:
    """A waste-paper basket."""
    radius, height = rng.uniform(0.12, 0.18), rng.uniform(0.26, 0.34)
    return Piece(
        "object", [column(0, 0, 0, radius / 1.25, height, materials.paint(rng), 1.25)], (radius, radius), height
    )


def window(rng: Generator) -> Piece:
    """A frame with panes and a sill; its back is the wall at z = 0, its lower edge y = 0."""
    frame, width, height = materials.trim(rng), rng.uniform(0.9, 1.7), rng.uniform(0.9, 1.3)
    bar, proud = rng.uniform(0.05, 0.08), 0.05
    parts = [
        block(0, 0, 0, (width - 0.02, height, 0.02), materials.view(rng)),
        block(0, -0.04, 0.04, (width + 0.16, 0.04, 0.16), frame),
        block(0, height - bar, 0, (width, bar, 2 * proud), frame),
        block(0, 0, 0, (width, bar, 2 * proud), frame),
    ]
    posts = np.linspace((bar - width) / 2, (width - bar) / 2, int(rng.integers(3, 5)))
    parts += [block(x, bar, 0, (bar, height - 2 * bar, 2 * proud - 0.004), frame) for x in posts]
    return Piece("window", flat(parts), (width / 2 + 0.08, 0.12), height)


def door(rng: Generator) -> Piece:
    """A leaf with panels, a frame and a handle, back at z = 0."""
    leaf, frame = materials.trim(rng), materials.trim(rng)
    width, height, jamb = rng.uniform(0.8, 0.95), rng.uniform(1.98, 2.12), 0.09
    parts = [block(0, 0, 0, (width, height, 0.04), leaf)]
    parts += [block(side * (width + jamb) / 2, 0, 0, (jamb, height + jamb, 0.08), frame) for side in (-1, 1)]
    parts.append(block(0, height, 0, (width, jamb, 0.08), frame))
    rows = int(rng.integers(1, 4))
    cell = (height - 0.24) / rows
    parts += [block(0, 0.14 + i * cell, 0, (width - 0.26, cell - 0.1, 0.07), leaf) for i in range(rows)]
    handle = (width / 2 - 0.07) * (1 if rng.random() < 0.5 else -1)
    parts.append(blob(handle, 1.0, 0.06, (0.05, 0.022, 0.03), materials.metal(rng)))
    return Piece("door", flat(parts), (width / 2 + jamb, 0.06), height + jamb)


def picture(rng: Generator) -> Piece:
    """A framed painting, back at z = 0, lower edge y = 0."""
    width, height, rim = rng.uniform(0.35, 1.0), rng.uniform(0.35, 0.75), rng.uniform(0.025, 0.06)
    parts = [
        block(0, 0, 0, (width, height, 0.06), materials.timber(rng)),
        block(0, rim, 0, (width - 2 * rim, height - 2 * rim, 0.07), materials.canvas(rng)),
    ]
    return Piece("picture", flat(parts), (width / 2, 0.04), height)
