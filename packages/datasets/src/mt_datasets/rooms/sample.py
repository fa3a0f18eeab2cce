"""Samples a furnished room and a camera in it; the same generator state always gives the same ones."""

from __future__ import annotations

from dataclasses import replace
from math import atan2, hypot, pi

import numpy as np
from numpy.random import Generator

from mt_datasets.rooms import furniture, materials, ornaments
from mt_datasets.rooms.camera import Camera
from mt_datasets.rooms.furniture import Maker, Piece, block
from mt_datasets.rooms.layout import Footprint, Pose, Room, against_wall, anywhere, in_corner, in_middle
from mt_datasets.rooms.primitives import Array, Plane, Primitive
from mt_datasets.rooms.scene import CLASSES, THINGS, Light, Scene

FREE = 0.55  # metres kept free around the camera
SMALL: tuple[Maker, ...] = (
    ornaments.vase,
    ornaments.carton,
    ornaments.books,
    ornaments.plant,
    ornaments.table_lamp,
    ornaments.ball,
)
STREWN: tuple[tuple[Maker, float], ...] = (
    (ornaments.ball, 0.45),
    (ornaments.basket, 0.35),
    (ornaments.carton, 0.3),
    (ornaments.plant, 0.3),
)


def sample_scene(rng: Generator) -> Scene:
    """A room with doors, windows, furniture of a theme, small things, pictures and lights."""
    room = Room(rng, (rng.uniform(3.0, 5.2), rng.uniform(2.4, 2.9), rng.uniform(3.2, 5.6)))
    _shell(room)
    for _ in range(int(rng.integers(1, 3))):
        room.hang(ornaments.door, (0.0, 0.0), clearance=0.7)
    windows = [room.hang(ornaments.window, (0.85, 1.05)) for _ in range(int(rng.integers(1, 3)))]
    lights = _lights(room, [w for w in windows if w])
    for theme in rng.permutation(len(THEMES)):
        if len(room.supports) < 2:  # small rooms may have no place for what a theme asks for
            THEMES[theme](room)
    room.top(SMALL, 0.55)
    for maker, chance in STREWN:
        room.furnish(maker, anywhere, chance)
    for _ in range(int(rng.integers(1, 5))):
        room.hang(ornaments.picture, (0.95, 1.6))
    return Scene(
        size=room.size,
        primitives=tuple(room.primitives),
        owners=tuple(room.owners),
        classes=tuple(CLASSES.index(label) for label in room.labels),
        lights=lights,
        ambient=materials.scaled(materials.colour(rng, saturation=(0, 0.12), value=(0.9, 1)), rng.uniform(0.22, 0.42)),
        exposure=rng.uniform(0.28, 0.42),
        noise=rng.uniform(0.004, 0.016),
        noise_seed=int(rng.integers(2**31)),
    )


def _shell(room: Room) -> None:
    """Floor, ceiling, four walls with skirting boards."""
    rng, (wide, tall, deep) = room.rng, room.size
    board, paper, skirting = materials.floor(rng), materials.wall(rng), materials.trim(rng)
    other = materials.wall(rng) if rng.random() < 0.35 else paper
    ground = Primitive(Plane(), (0, 0, 0), (1, 1, 1), board, yaw=rng.integers(2) * pi / 2)
    room.add(Piece("floor", [ground], (wide / 2, deep / 2), 0), Pose(0, 0))
    lid = Primitive(Plane(), (0, tall, 0), (1, 1, 1), materials.ceiling(rng), tilt=pi)
    room.add(Piece("ceiling", [lid], (wide / 2, deep / 2), 0), Pose(0, 0))
    for wall in range(4):
        length = room.wall_length(wall)
        face = Primitive(Plane(), (0, tall / 2, 0), (1, 1, 1), other if wall == 0 else paper, tilt=pi / 2)
        free = length - wall % 2 * 0.03  # every other board ends at its neighbours
        strip = block(0, 0, 0, (free, 0.08, 0.03), skirting)
        room.add(Piece("wall", [face, *furniture.flat([strip])], (length / 2, 0), tall), room.wall_pose(wall, 0, 0))


def _lights(room: Room, windows: list[Pose]) -> tuple[Light, ...]:
    """A lamp at the ceiling and, more often than not, daylight from a window."""
    rng = room.rng
    piece = ornaments.pendant(rng)
    x, z = rng.uniform(-0.15, 0.15, 2) * (room.size[0], room.size[2])
    room.add(piece, Pose(x, z), room.size[1])
    warm = materials.scaled(materials.colour(rng, (0.06, 0.13), (0.05, 0.3), (0.95, 1)), rng.uniform(1.0, 2.0))
    lights = [Light((x, room.size[1] - piece.height - 0.03, z), warm, rng.uniform(0.04, 0.15))]
    if windows and rng.random() < 0.6:
        place = windows[0].at(0, 0.3)
        cool = materials.scaled(materials.colour(rng, (0.52, 0.65), (0.0, 0.2), (0.95, 1)), rng.uniform(1.5, 4.0))
        lights.append(Light((place.x, 1.5, place.z), cool, rng.uniform(0.15, 0.35)))
    return tuple(lights)


def _seat(room: Room, table: Footprint, maker: Maker, chance: float) -> None:
    """Chairs of one kind around a table, two to a long side, pushed in a little."""
    like = int(room.rng.integers(2**31))
    wide, deep = table.half
    for turn, side, reach in ((0.0, wide, deep), (pi / 2, deep, wide), (pi, wide, deep), (-pi / 2, deep, wide)):
        for along in (-side / 2, side / 2) if side > 0.62 else (0.0,):
            if room.rng.random() < chance:
                piece = maker(np.random.default_rng(like))
                pulled = piece.half[1] + room.rng.uniform(-0.12, 0.25)
                place = replace(table.pose, yaw=table.pose.yaw + turn).at(along, reach + pulled, pi)
                room.stand(piece, replace(place, yaw=place.yaw + room.rng.normal(0, 0.08)), besides=table)


def _carpet(room: Room, chance: float, under: Footprint | None = None) -> None:
    """A rug, in the middle of the room or under something; the room's only one, for rugs lie on one level."""
    if room.rng.random() < chance and "rug" not in room.labels:
        piece = ornaments.rug(room.rng)
        pose = under.pose if under else in_middle(room, piece)
        footprint = Footprint(pose, piece.half, 0, 0)
        if all(abs(x) < room.size[0] / 2 and abs(z) < room.size[2] / 2 for x, z in footprint.corners):
            room.add(piece, pose)


def bedroom(room: Room) -> None:
    """A bed with nightstands, something to put clothes in, perhaps a desk."""
    bed = room.furnish(furniture.bed, against_wall)
    if bed:
        for side in (-1, 1):
            stand = furniture.nightstand(room.rng)
            across = bed.half[0] + stand.half[0] + 0.05
            room.stand(stand, bed.pose.at(side * across, stand.half[1] - bed.half[1] + 0.02))
    room.furnish(furniture.wardrobe, against_wall, 0.7)
    room.furnish(furniture.dresser, against_wall, 0.5)
    _work(room, 0.45)
    room.furnish(ornaments.floor_lamp, in_corner, 0.35)
    room.furnish(furniture.sofa, against_wall, 0.2)
    _carpet(room, 0.6)


def living_room(room: Room) -> None:
    """A sofa with a low table before it, shelves, perhaps a second seat."""
    sofa = room.furnish(furniture.sofa, against_wall)
    if sofa:
        table = furniture.coffee_table(room.rng)
        room.stand(table, sofa.pose.at(0, sofa.half[1] + table.half[1] + room.rng.uniform(0.3, 0.5)))
    room.furnish(furniture.sofa, in_corner, 0.4)
    room.furnish(furniture.bookcase, against_wall, 0.8)
    room.furnish(furniture.sideboard, against_wall, 0.7)
    room.furnish(ornaments.floor_lamp, in_corner, 0.7)
    room.furnish(furniture.stool, anywhere, 0.3)
    room.furnish(furniture.chair, anywhere, 0.4)
    _carpet(room, 0.75)


def dining_room(room: Room) -> None:
    """A table with chairs around it and a sideboard."""
    table = room.furnish(furniture.dining_table, in_middle)
    if table:
        _carpet(room, 0.4, under=table)
        _seat(room, table, furniture.chair, 0.8)
    room.furnish(furniture.sideboard, against_wall, 0.8)
    room.furnish(furniture.bookcase, against_wall, 0.4)
    room.furnish(furniture.wardrobe, against_wall, 0.3)
    room.furnish(furniture.dresser, against_wall, 0.3)
    room.furnish(ornaments.floor_lamp, in_corner, 0.4)
    room.furnish(furniture.sofa, against_wall, 0.35)


def study(room: Room) -> None:
    """A desk with a chair, books, a place to rest."""
    _work(room, 1.0)
    for chance in (1.0, 0.6):
        room.furnish(furniture.bookcase, against_wall, chance)
    room.furnish(furniture.bed, against_wall, 0.35)
    room.furnish(furniture.sofa, against_wall, 0.5)
    room.furnish(furniture.dresser, against_wall, 0.4)
    room.furnish(ornaments.floor_lamp, in_corner, 0.5)
    room.furnish(furniture.coffee_table, in_middle, 0.4)
    room.furnish(furniture.chair, anywhere, 0.5)
    _carpet(room, 0.6)


THEMES = (bedroom, bedroom, living_room, living_room, dining_room, study)


def _work(room: Room, chance: float) -> None:
    """A desk at a wall with its chair."""
    desk = room.furnish(furniture.desk, against_wall, chance)
    if desk:
        maker = furniture.chair if room.rng.random() < 0.75 else furniture.stool
        seat = maker(room.rng)
        out = desk.half[1] + seat.half[1] + room.rng.uniform(0.05, 0.2)
        room.stand(seat, desk.pose.at(room.rng.uniform(-0.15, 0.15), out, pi + room.rng.normal(0, 0.2)))


def sample_camera(rng: Generator, scene: Scene, candidates: int = 40) -> Camera:
    """A camera at a person's height that stands free and looks at furniture.

    Random viewpoints at least FREE metres away from walls and objects (should a room be too full for that, the freest
    one) look at random objects; the one is taken that has most furniture before it, near but not very near.
    """
    wide, _, deep = scene.size
    focal, height = rng.uniform(0.65, 1.0), rng.uniform(1.1, 1.75)
    flat = rng.uniform(-1, 1, (candidates, 2)) * (wide / 2 - FREE, deep / 2 - FREE)
    points = np.stack([flat[:, 0], np.full(candidates, height), flat[:, 1]], axis=1)
    clear = scene.frames.distance(points)[:, scene.bounded].min(axis=1)
    points = points[clear >= min(FREE, clear.max())]
    things = _middles(scene)[np.array(scene.classes) >= CLASSES.index(THINGS[0])]
    targets = things[rng.integers(len(things), size=len(points))] * (0.8, 1, 0.8)
    best = int(np.argmax(_interest(points, targets, things, focal)))
    x, y, z = targets[best] - points[best]
    yaw, pitch = atan2(-x, -z) + rng.normal(0, 0.08), 0.55 * atan2(y, hypot(x, z)) + rng.normal(0, 0.07)
    position = float(points[best, 0]), height, float(points[best, 2])
    return Camera.looking(position, yaw, min(max(pitch, -0.45), 0.12), rng.normal(0, 0.02), focal)


def _middles(scene: Scene) -> Array:
    """Mean centre of each object's parts, (objects, 3)."""
    owners = np.array(scene.owners)
    sums = np.stack([np.bincount(owners, scene.frames.centre[:, axis]) for axis in range(3)], axis=1)
    return np.asarray(sums / np.bincount(owners)[:, None])


def _interest(points: Array, targets: Array, things: Array, focal: float) -> Array:
    """How many things lie before each viewpoint, near ones counting more, less those that would fill the picture."""
    gaze = targets - points
    gaze = gaze / np.linalg.norm(gaze, axis=1, keepdims=True)
    towards = things - points[:, None]  # (viewpoints, things, 3)
    distance = np.linalg.norm(towards, axis=2)
    before = np.einsum("vtk,vk->vt", towards, gaze) / distance > np.cos(np.arctan(0.55 / focal))
    worth = np.where(distance > 1.4, 1 / np.maximum(distance, 3), np.where(distance > 1.1, 0, -1.0))
    return np.asarray((before * worth).sum(axis=1))
