"""Furniture built of primitives. Each piece stands on y = 0 about the origin, its front towards +z; sizes in metres."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import sin

from numpy.random import Generator

from mt_datasets.rooms import materials, textures
from mt_datasets.rooms.primitives import Box, Ellipsoid, Frustum, Primitive, Triple
from mt_datasets.rooms.textures import Material


@dataclass(frozen=True)
class Support:
    """A level surface on which things may stand: its height, middle (x, z) and half sizes (x, z)."""

    height: float
    middle: tuple[float, float]
    half: tuple[float, float]


@dataclass(frozen=True)
class Piece:
    """One object: its class name, parts, footprint half sizes (x, z), height, and what may stand on it."""

    label: str
    parts: list[Primitive]
    half: tuple[float, float]
    height: float
    supports: list[Support] = field(default_factory=list)


Maker = Callable[[Generator], Piece]


def block(x: float, y: float, z: float, size: Triple, material: Material, tilt: float = 0.0) -> Primitive:
    """A box of full size (x, y, z) whose bottom is centred at a point."""
    width, height, depth = size
    return Primitive(Box(), (x, y + height / 2, z), (width / 2, height / 2, depth / 2), material, tilt=tilt)


def column(
    x: float, y: float, z: float, radius: float, height: float, material: Material, taper: float = 1.0
) -> Primitive:
    """An upright cylinder or frustum whose bottom is centred at a point."""
    return Primitive(Frustum(taper), (x, y + height / 2, z), (radius, height / 2, radius), material)


def blob(x: float, y: float, z: float, half: Triple, material: Material) -> Primitive:
    """An ellipsoid whose lowest point is given."""
    return Primitive(Ellipsoid(), (x, y + half[1], z), half, material)


def flat(parts: list[Primitive]) -> list[Primitive]:
    """Parts whose shadow does not matter: thin, hidden under others, or glowing."""
    return [Primitive(p.shape, p.centre, p.half, p.material, p.yaw, p.tilt, casts=False) for p in parts]


def legs(rng: Generator, x: float, z: float, height: float, thickness: float, material: Material) -> list[Primitive]:
    """Four square or round legs at (+-x, +-z)."""
    places = [(sx * x, sz * z) for sx in (-1, 1) for sz in (-1, 1)]
    if rng.random() < 0.5:
        return [block(px, 0, pz, (thickness, height, thickness), material) for px, pz in places]
    return [column(px, 0, pz, thickness * 0.4, height, material, 1.4) for px, pz in places]


def _board(rng: Generator, width: float, depth: float, height: float) -> Piece:
    """A table with a rectangular top on four legs."""
    material = materials.timber(rng)
    thick, leg = rng.uniform(0.025, 0.06), rng.uniform(0.04, 0.08)
    inset = leg / 2 + rng.uniform(0, 0.06)
    parts = [block(0, height - thick, 0, (width, thick, depth), material)]
    parts += legs(rng, width / 2 - inset, depth / 2 - inset, height - thick, leg, material)
    half = width / 2, depth / 2
    return Piece("table", parts, half, height, [Support(height, (0, 0), half)])


def dining_table(rng: Generator) -> Piece:
    """A table to eat at, sometimes round on a central foot."""
    height = rng.uniform(0.72, 0.78)
    if rng.random() < 0.7:
        return _board(rng, rng.uniform(1.1, 1.8), rng.uniform(0.75, 0.95), height)
    material, radius = materials.timber(rng), rng.uniform(0.45, 0.6)
    parts = [
        column(0, 0, 0, radius * 0.55, 0.04, material, 0.8),
        column(0, 0.04, 0, 0.06, height - 0.08, material),
        column(0, height - 0.04, 0, radius, 0.04, material),
    ]
    return Piece("table", parts, (radius, radius), height, [Support(height, (0, 0), (radius * 0.65, radius * 0.65))])


def coffee_table(rng: Generator) -> Piece:
    """A low table."""
    return _board(rng, rng.uniform(0.8, 1.2), rng.uniform(0.5, 0.7), rng.uniform(0.36, 0.46))


def desk(rng: Generator) -> Piece:
    """A table with a block of drawers under one side."""
    board = _board(rng, rng.uniform(1.1, 1.6), rng.uniform(0.6, 0.75), rng.uniform(0.72, 0.76))
    material = board.parts[0].material
    depth = 2 * board.half[1] - 0.14
    x = (board.half[0] - 0.32) * (1 if rng.random() < 0.5 else -1)
    parts = [block(x, 0.12, 0, (0.38, 0.5, depth), material)]
    parts += flat([block(x, 0.15 + 0.16 * i, depth / 2, (0.34, 0.13, 0.024), material) for i in range(3)])
    return Piece("table", board.parts + parts, board.half, board.height, board.supports)


def chair(rng: Generator) -> Piece:
    """Seat, four legs and a leaning back, sometimes with arms."""
    material = materials.timber(rng)
    cover = materials.fabric(rng) if rng.random() < 0.5 else material
    width, depth, seat = rng.uniform(0.4, 0.48), rng.uniform(0.4, 0.48), rng.uniform(0.43, 0.48)
    lean, tall = rng.uniform(0.05, 0.2), rng.uniform(0.4, 0.55)
    parts = [block(0, seat - 0.045, 0, (width, 0.045, depth), cover)]
    parts += legs(rng, width / 2 - 0.03, depth / 2 - 0.03, seat - 0.045, 0.04, material)
    back = depth / 2 - 0.025
    if rng.random() < 0.5:
        parts.append(block(0, seat, -back - tall / 2 * sin(lean), (width, tall, 0.035), cover, -lean))
    else:
        for x in (0.03 - width / 2, width / 2 - 0.03):
            post = (0.04, tall + 0.02, 0.035)
            parts.append(block(x, seat - 0.02, -back - tall / 2 * sin(lean), post, material, -lean))
        for share in (0.45, 0.85):
            rail = -back - tall * share * sin(lean)
            parts.append(block(0, seat + tall * share - 0.05, rail, (width - 0.09, 0.11, 0.025), cover, -lean))
    if rng.random() < 0.25:
        for x in (0.02 - width / 2, width / 2 - 0.02):
            parts.append(block(x, seat + 0.2, 0, (0.045, 0.035, depth - 0.02), material))
            parts.append(block(x, seat, depth / 2 - 0.06, (0.035, 0.2, 0.035), material))
    reach = depth / 2 + tall * sin(lean) / 2
    return Piece("chair", parts, (width / 2 + 0.02, reach), seat + tall)


def stool(rng: Generator) -> Piece:
    """A round seat on a swivel foot: a chair without a back."""
    cover, foot, height = materials.fabric(rng), materials.metal(rng), rng.uniform(0.45, 0.7)
    parts = [
        column(0, 0, 0, 0.19, 0.03, foot, 0.7),
        column(0, 0.03, 0, 0.03, height - 0.1, foot),
        column(0, height - 0.07, 0, 0.18, 0.07, cover),
    ]
    return Piece("chair", parts, (0.2, 0.2), height)


def sofa(rng: Generator) -> Piece:
    """Base, back, arms, seat cushions and a few pillows; an armchair when there is one seat."""
    material = materials.fabric(rng)
    seats = int(rng.choice([1, 2, 3], p=(0.3, 0.4, 0.3)))
    arm, depth, seat = rng.uniform(0.12, 0.24), rng.uniform(0.8, 0.95), rng.uniform(0.4, 0.46)
    inner = seats * rng.uniform(0.6, 0.72)
    width, back, tall = inner + 2 * arm, rng.uniform(0.18, 0.26), rng.uniform(0.75, 0.95)
    side, foot, cushion = seat + rng.uniform(0.12, 0.2), 0.07, inner / seats
    parts = [
        block(0, foot, 0, (width - 0.04, seat - 0.13 - foot, depth - 0.04), material),
        block(0, seat - 0.13, back / 2 - depth / 2, (inner, tall - seat + 0.13, back), material),
        block(-(inner + arm) / 2, foot, 0, (arm, side - foot, depth), material),
        block((inner + arm) / 2, foot, 0, (arm, side - foot, depth), material),
    ]
    for i in range(seats):
        x = (i + 0.5) * cushion - inner / 2
        parts.append(block(x, seat - 0.13, back / 2 + 0.01, (cushion - 0.015, 0.13, depth - back - 0.01), material))
        if rng.random() < 0.45:
            z = back - depth / 2 + 0.14
            parts.append(blob(x + rng.uniform(-0.08, 0.08), seat - 0.01, z, (0.22, 0.19, 0.1), materials.fabric(rng)))
    parts += flat(legs(rng, width / 2 - 0.07, depth / 2 - 0.07, foot, 0.05, materials.metal(rng)))
    return Piece("sofa", parts, (width / 2, depth / 2), tall)


def bed(rng: Generator) -> Piece:
    """Frame, mattress, blanket, pillows and headboard; its head is at the back."""
    frame, sheet, blanket = materials.timber(rng), materials.linen(rng), materials.fabric(rng)
    double = rng.random() < 0.6
    width = rng.uniform(1.4, 1.8) if double else rng.uniform(0.9, 1.1)
    length, base, thick = rng.uniform(1.95, 2.1), rng.uniform(0.26, 0.34), rng.uniform(0.16, 0.24)
    top, head = base + thick, rng.uniform(0.75, 1.15)
    cover = rng.uniform(0.5, 0.72) * length
    parts = [
        block(0, 0.12, 0.03, (width, base - 0.12, length - 0.06), frame),
        block(0, base, 0.03, (width - 0.06, thick, length - 0.1), sheet),
        block(0, base - 0.05, length / 2 + 0.015 - cover / 2, (width + 0.03, thick + 0.08, cover), blanket),
        block(0, 0, 0.03 - length / 2, (width + 0.06, head, 0.06), frame),
    ]
    parts += flat(legs(rng, width / 2 - 0.05, length / 2 - 0.08, 0.12, 0.07, frame))
    for x in (-width / 4, width / 4) if double else (0.0,):
        parts.append(blob(x, top - 0.02, 0.3 - length / 2, (0.32, 0.09, 0.2), materials.linen(rng)))
    return Piece("bed", parts, (width / 2 + 0.04, length / 2 + 0.02), head)


def cabinet(rng: Generator, width: float, height: float, depth: float, rows: int, columns: int) -> Piece:
    """A body on a plinth with a grid of fronts, each with a knob."""
    body = materials.timber(rng)
    front = body if rng.random() < 0.6 else materials.timber(rng)
    knob, foot = materials.metal(rng), 0.06
    parts = [
        block(0, 0, -0.02, (width - 0.06, foot, depth - 0.08), materials.metal(rng)),
        block(0, foot, 0, (width, height - foot, depth), body),
    ]
    cell_x, cell_y = (width - 0.03) / columns, (height - foot - 0.03) / rows
    for row in range(rows):
        for i in range(columns):
            x, y = (i + 0.5) * cell_x - (width - 0.03) / 2, foot + 0.015 + row * cell_y
            side = (0.38 if i % 2 == 0 else -0.38) * cell_x if rows == 1 else 0.0
            panel = block(x, y + 0.01, depth / 2, (cell_x - 0.02, cell_y - 0.02, 0.03), front)
            parts += flat([panel, blob(x + side, y + cell_y * 0.5 - 0.02, depth / 2 + 0.03, (0.02, 0.02, 0.02), knob)])
    half = width / 2, depth / 2 + 0.03
    supports = [Support(height, (0, 0), (width / 2, depth / 2))] if height < 1.4 else []
    return Piece("cabinet", parts, half, height, supports)


def sideboard(rng: Generator) -> Piece:
    """A long low cabinet."""
    doors = int(rng.integers(2, 5))
    return cabinet(rng, rng.uniform(1.1, 1.8), rng.uniform(0.55, 0.9), rng.uniform(0.38, 0.5), 1, doors)


def dresser(rng: Generator) -> Piece:
    """A chest of drawers."""
    drawers = int(rng.integers(3, 5))
    return cabinet(rng, rng.uniform(0.7, 1.1), rng.uniform(0.7, 1.2), rng.uniform(0.4, 0.5), drawers, 1)


def nightstand(rng: Generator) -> Piece:
    """A small cabinet beside a bed."""
    return cabinet(rng, rng.uniform(0.4, 0.5), rng.uniform(0.42, 0.58), rng.uniform(0.35, 0.42), 2, 1)


def wardrobe(rng: Generator) -> Piece:
    """A tall cabinet."""
    doors = int(rng.integers(2, 4))
    return cabinet(rng, rng.uniform(0.9, 1.6), rng.uniform(1.8, 2.15), rng.uniform(0.5, 0.6), 1, doors)


def bookcase(rng: Generator) -> Piece:
    """Open shelves with rows of books."""
    body = materials.timber(rng)
    width, depth, levels = rng.uniform(0.7, 1.2), rng.uniform(0.26, 0.34), int(rng.integers(3, 6))
    gap, board = rng.uniform(0.32, 0.38), 0.03
    height = levels * gap + board
    parts = [block(side * (width - board) / 2, 0, 0, (board, height, depth), body) for side in (-1, 1)]
    parts.append(block(0, 0, 0.01 - depth / 2, (width - 2 * board, height, 0.02), body))
    for level in range(levels + 1):
        y = height - board if level == levels else level * gap
        parts.append(block(0, y, 0.01, (width - 2 * board, board, depth - 0.022), body))
        if level < levels and rng.random() < 0.85:
            pair = materials.colour(rng, saturation=(0.2, 0.8)), materials.colour(rng, value=(0.2, 0.95))
            books = materials.textured(rng, *pair, textures.spines, rng.uniform(0.03, 0.05))
            filled = (width - 2 * board) * rng.uniform(0.4, 0.98)
            x = (width - 2 * board - filled) / 2 * (1 if rng.random() < 0.5 else -1)
            tall = gap - board - rng.uniform(0.03, 0.1)
            parts += flat([block(x, y + board, 0, (filled, tall, depth * rng.uniform(0.6, 0.85)), books)])
    supports = [Support(height, (0, 0), (width / 2, depth / 2))] if height < 1.4 else []
    return Piece("cabinet", parts, (width / 2, depth / 2), height, supports)
