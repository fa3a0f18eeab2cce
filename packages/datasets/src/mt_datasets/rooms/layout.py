"""Where things stand: the room under construction, footprints that must not overlap, and rules that propose places."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from math import cos, hypot, pi, sin

from numpy.random import Generator

from mt_datasets.rooms.furniture import Maker, Piece, Support
from mt_datasets.rooms.primitives import Primitive

TRIES = 16  # proposals before a piece is left out
GAP = 0.03  # metres left between neighbours


@dataclass(frozen=True)
class Pose:
    """Where a piece's origin stands on the floor plan and how it is turned: local +z looks along (sin yaw, cos yaw)."""

    x: float
    z: float
    yaw: float = 0.0

    def at(self, x: float, z: float, turn: float = 0.0) -> Pose:
        """The pose at a local position, turned further."""
        c, s = cos(self.yaw), sin(self.yaw)
        return Pose(self.x + x * c + z * s, self.z - x * s + z * c, self.yaw + turn)


@dataclass(frozen=True)
class Footprint:
    """An upright block of space: a rectangle with half sizes about a pose, from height `low` to `high`."""

    pose: Pose
    half: tuple[float, float]
    low: float
    high: float

    @cached_property
    def corners(self) -> list[tuple[float, float]]:
        """The rectangle's corners, (x, z)."""
        (sx, sz), x, z = self.axes[0], self.pose.x, self.pose.z
        wide, deep = self.half
        return [(x + a * sz + b * sx, z - a * sx + b * sz) for a in (-wide, wide) for b in (-deep, deep)]

    @cached_property
    def axes(self) -> list[tuple[float, float]]:
        """The directions (x, z) of its sides."""
        x, z = sin(self.pose.yaw), cos(self.pose.yaw)
        return [(x, z), (z, -x)]

    def overlaps(self, other: Footprint, gap: float = GAP) -> bool:
        """Whether two blocks come closer than gap on the plan while sharing heights (separating axes)."""
        if self.low >= other.high - 1e-6 or other.low >= self.high - 1e-6:
            return False
        apart = hypot(self.pose.x - other.pose.x, self.pose.z - other.pose.z)
        if apart >= hypot(*self.half) + hypot(*other.half) + gap:
            return False
        for x, z in self.axes + other.axes:
            mine = [cx * x + cz * z for cx, cz in self.corners]
            theirs = [cx * x + cz * z for cx, cz in other.corners]
            if max(mine) + gap <= min(theirs) or max(theirs) + gap <= min(mine):
                return False
        return True


Rule = Callable[["Room", Piece], Pose]


class Room:
    """A room being furnished: x in +-size[0] / 2, y in 0 to size[1], z in +-size[2] / 2 (metres)."""

    def __init__(self, rng: Generator, size: tuple[float, float, float]) -> None:
        self.rng, self.size = rng, size
        self.primitives: list[Primitive] = []
        self.owners: list[int] = []
        self.labels: list[str] = []
        self.taken: list[Footprint] = []
        self.supports: list[tuple[Support, Pose]] = []

    def add(self, piece: Piece, pose: Pose, height: float = 0.0) -> None:
        """Puts a piece into the room as a new object, without asking whether there is space."""
        for part in piece.parts:
            x, y, z = part.centre
            place = pose.at(x, z, part.yaw)
            self.primitives.append(part.moved((place.x, y + height, place.z), place.yaw))
        self.owners += [len(self.labels)] * len(piece.parts)
        self.labels.append(piece.label)
        self.supports += [(replace(s, height=s.height + height), pose) for s in piece.supports]

    def claim(self, footprint: Footprint, besides: Footprint | None = None) -> bool:
        """Reserves space if it lies in the room and is free, not counting one footprint; says whether it did."""
        wide, _, deep = (side / 2 + 1e-6 for side in self.size)
        inside = all(abs(x) <= wide and abs(z) <= deep for x, z in footprint.corners)
        if not inside or any(footprint.overlaps(other) for other in self.taken if other is not besides):
            return False
        self.taken.append(footprint)
        return True

    def stand(
        self, piece: Piece, pose: Pose, height: float = 0.0, besides: Footprint | None = None
    ) -> Footprint | None:
        """Adds a piece that stands at a pose if its space is free; returns the space it took."""
        footprint = Footprint(pose, piece.half, height, height + piece.height)
        if not self.claim(footprint, besides):
            return None
        self.add(piece, pose, height)
        return footprint

    def furnish(self, maker: Maker, rule: Rule, chance: float = 1.0) -> Footprint | None:
        """Makes a piece with a given chance and stands it where the rule's proposals first fit."""
        if self.rng.random() >= chance:
            return None
        piece = maker(self.rng)
        for _ in range(TRIES):
            footprint = self.stand(piece, rule(self, piece))
            if footprint:
                return footprint
        return None

    def hang(self, maker: Maker, height: tuple[float, float], clearance: float = 0.0) -> Pose | None:
        """Fixes a piece to a wall with its lower edge at a height in the range; clearance is kept free before it."""
        piece, (low, high) = maker(self.rng), height
        for _ in range(TRIES):
            wall, bottom = int(self.rng.integers(4)), self.rng.uniform(low, high)
            reach = self.wall_length(wall) / 2 - piece.half[0] - 0.1
            depth = max(piece.half[1], clearance / 2)
            along = self.rng.uniform(-reach, reach) if reach > 0 else 0.0
            footprint = Footprint(
                self.wall_pose(wall, along, depth), (piece.half[0], depth), bottom, bottom + piece.height
            )
            if bottom + piece.height < self.size[1] - 0.1 and self.claim(footprint):
                pose = self.wall_pose(wall, along, 0.0)
                self.add(piece, pose, bottom)
                return pose
        return None

    def top(self, makers: tuple[Maker, ...], chance: float) -> None:
        """Stands small things on the supports, one try for every quarter of a square metre and at least one."""
        for support, pose in list(self.supports):
            area = 4 * support.half[0] * support.half[1]
            for _ in range(1 + int(area / 0.25)):
                if self.rng.random() >= chance:
                    continue
                piece = makers[self.rng.integers(len(makers))](self.rng)
                free = [h - max(piece.half) for h in support.half]
                if min(free) <= 0:
                    continue
                x, z = support.middle[0] + self.rng.uniform(-free[0], free[0]), self.rng.uniform(-free[1], free[1])
                self.stand(piece, pose.at(x, support.middle[1] + z, self.rng.uniform(-0.6, 0.6)), support.height)

    def wall_length(self, wall: int) -> float:
        """Length of a wall; 0 is at -z, then -x, +z, +x."""
        return self.size[0] if wall % 2 == 0 else self.size[2]

    def wall_pose(self, wall: int, along: float, offset: float) -> Pose:
        """The pose at a distance from a wall that looks into the room."""
        return Pose(0, 0, wall * pi / 2).at(along, offset - self.wall_length(wall + 1) / 2)


def against_wall(room: Room, piece: Piece) -> Pose:
    """Back to a wall, anywhere along it."""
    wall = int(room.rng.integers(4))
    reach = max(room.wall_length(wall) / 2 - piece.half[0] - 0.03, 0)
    return room.wall_pose(wall, room.rng.uniform(-reach, reach), piece.half[1] + 0.03)


def in_corner(room: Room, piece: Piece) -> Pose:
    """In a corner of the room, its back more or less to one of the two walls."""
    side = max(piece.half) * 1.3 + 0.05
    wall, turn = int(room.rng.integers(4)), room.rng.uniform(-0.4, 0.4)
    along = room.wall_length(wall) / 2 - side
    return room.wall_pose(wall, along if room.rng.random() < 0.5 else -along, side).at(0, 0, turn)


def in_middle(room: Room, piece: Piece) -> Pose:
    """Near the middle, nearly parallel to the walls."""
    x, z = room.rng.normal(0, 0.12, 2)
    turn = room.rng.integers(4) * pi / 2 + room.rng.normal(0, 0.1)
    return Pose(x * room.size[0], z * room.size[2], turn)


def anywhere(room: Room, piece: Piece) -> Pose:
    """Anywhere on the floor, turned at will."""
    x, z = room.rng.uniform(-0.5, 0.5, 2)
    return Pose(x * room.size[0], z * room.size[2], room.rng.uniform(-pi, pi))
