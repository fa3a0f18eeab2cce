"""Moves of a picture with its labels, and what a literal reading of each does to them: the kit's reference."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from ..augment.kernels import rotate_image
from ..labels import IGNORE, BinaryMap, ClassMap, DepthMap, Label, NormalMap

ANGLE = 20.0  # degrees, counter-clockwise
FIRST = IGNORE + 1  # what the first pixel's place is called, so that none is called void

Values = Callable[[type[Label], Tensor], Tensor]


@dataclass(frozen=True)
class Move:
    """One geometric change.

    Attributes:
        labels: moves a label, by torchvision's functional.
        image: moves a picture as augmentation does.
        values: what becomes of the values (..., C, N) of a type of label, wherever they go.
    """

    labels: Callable[[Any], Any]
    image: Callable[[Any], Any]
    values: Values


def moves(height: int, width: int) -> dict[str, Move]:
    """A mirror, a rotation, two zooms and a change of size of pictures of this size."""
    window = (height // 8, width // 4, round(height / 1.5), round(width / 1.5))
    wide = (-height // 4, -width // 8, round(height * 1.4), round(width * 1.4))
    smaller = [max(1, height * 2 // 3), max(1, width * 3 // 4)]
    return {
        "mirror": Move(F.horizontal_flip, F.horizontal_flip, _mirrored),
        "rotation": Move(lambda x: F.rotate(x, ANGLE), lambda x: rotate_image(x, ANGLE), _rotated),
        "zoom in": _zoom(window, height, width),
        "zoom out": _zoom(wide, height, width),
        "resize": Move(lambda x: F.resize(x, smaller), lambda x: F.resize(x, smaller, antialias=True), _same),
    }


def places(height: int, width: int) -> ClassMap:
    """Every pixel's place: its index and FIRST."""
    return ClassMap((torch.arange(height * width) + FIRST).view(height, width))


def ramp(height: int, width: int) -> tv_tensors.Image:
    """A picture whose red rises to the right and whose green rises downwards, from 0 to 255."""
    red = torch.linspace(0, 255, width).expand(height, width)
    green = torch.linspace(0, 255, height).unsqueeze(1).expand(height, width)
    return tv_tensors.Image(torch.stack([red, green, torch.zeros(height, width)]).round().to(torch.uint8))


def misplaced(move: Move, height: int, width: int) -> float:
    """How far labels land from their picture at most, in pixels; half a pixel is a matter of rounding."""
    place = move.labels(places(height, width)).as_subclass(Tensor)
    image = move.image(ramp(height, width)).as_subclass(Tensor).float()
    inside = place != IGNORE
    inner = torch.nn.functional.max_pool2d((~inside).float()[None], 5, 1, 2)[0] == 0  # black frames blend in
    inner[[0, 1, -2, -1]] = inner[:, [0, 1, -2, -1]] = False
    source = (place - FIRST).clamp(min=0)
    column, row = source % width, source // width
    off = torch.stack(
        [(image[0] * (width - 1) / 255 - column).abs(), (image[1] * (height - 1) / 255 - row).abs()]
    )  # pixels
    return float(off[:, inner].max()) if bool(inner.any()) else 0.0


def expected(move: Move, label: Label) -> Tensor:
    """The label after a move, pixel by pixel from where it came from: what came from outside is void."""
    height, width = label.shape[-2:]
    place = move.labels(places(height, width)).as_subclass(Tensor)
    outside = place == IGNORE
    values = label.as_subclass(Tensor).flatten(-2)
    void = ~type(label).valid(label.as_subclass(Tensor)).flatten()
    changed = torch.where(void, values, move.values(type(label), values))
    moved = changed[..., (place - FIRST).clamp(min=0)]
    return torch.where(outside, torch.as_tensor(type(label).void, dtype=moved.dtype), moved)


def is_known(label: Label) -> bool:
    """Whether the kit knows what a move does to the label's values; a plugin's own types know best."""
    return type(label) in (ClassMap, BinaryMap, DepthMap, NormalMap)


def _zoom(window: tuple[int, int, int, int], height: int, width: int) -> Move:
    factor = math.sqrt(height * width / (window[2] * window[3]))

    def values(kind: type[Label], x: Tensor) -> Tensor:
        return x / factor if kind is DepthMap else x

    def move(x: Any) -> Any:
        return F.resized_crop(x, *window, size=[height, width], antialias=True)

    return Move(move, move, values)


def _same(kind: type[Label], x: Tensor) -> Tensor:
    return x


def _mirrored(kind: type[Label], x: Tensor) -> Tensor:
    return torch.stack([-x[0], x[1], x[2]]) if kind is NormalMap else x


def _rotated(kind: type[Label], x: Tensor) -> Tensor:
    c, s = math.cos(math.radians(ANGLE)), math.sin(math.radians(ANGLE))
    return torch.stack([c * x[0] - s * x[1], s * x[0] + c * x[1], x[2]]) if kind is NormalMap else x
