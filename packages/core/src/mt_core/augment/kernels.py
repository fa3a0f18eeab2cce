"""How each type of label follows torchvision's geometric functionals.

Labels are never blended: each pixel of the result is the label of the nearest source pixel, or void where there is
none. On top of that
    a mirrored normal has its x negated;
    a rotated normal turns with the picture;
    a depth in a picture magnified s times is divided by s, as if the camera had gone nearer: exact for surfaces that
    face the camera. Normals stay in a zoom, as they do when a camera moves; published protocols agree.
Only a zoom, `resized_crop`, magnifies. A plain `resize` changes the camera's pixels, not its place.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import grid_sample
from torchvision import tv_tensors
from torchvision.transforms.v2.functional import register_kernel

from ..labels import BinaryMap, ClassMap, DepthMap, Label, NormalMap

Kernel = Callable[..., Label]


def register_label(label: type[Label], **special: Kernel) -> None:
    """Give a label type its kernels for `horizontal_flip`, `rotate`, `resize`, `resized_crop` and `pad`.

    By default pixels move and their values stay. Where values must change with the geometry, `special` names the
    functional and gives a kernel with torchvision's signature for it, which may build on those of this module.

    Raises:
        ValueError: if the type has a kernel already, or torchvision has no such functional.
    """
    moving: dict[str, Kernel] = {
        "horizontal_flip": horizontal_flip,
        "rotate": rotate,
        "resize": resize,
        "resized_crop": resized_crop,
        "pad": pad,
    }
    for operation, kernel in {**moving, **special}.items():
        register_kernel(operation, label)(kernel)


def horizontal_flip(label: Label) -> Label:
    """Mirror left and right."""
    return _like(label, _values(label).flip(-1))


def rotate(label: Label, angle: float, expand: bool = False, center: Sequence[float] | None = None, **_: Any) -> Label:
    """Turn counter-clockwise about the centre, by degrees; corners that come from outside are void."""
    if expand or center is not None:
        raise TypeError("labels rotate about their centre and keep their size: expand and center are not supported")
    height, width = label.shape[-2:]
    return _gather(label, *_turned(height, width, angle))


def rotate_image(image: Tensor, angle: float) -> Tensor:
    """Turn a picture (3, H, W) uint8 as `rotate` turns its labels, bilinear, black outside.

    Twice as fast as torchvision's, whose result it gives: the grid is sums of a row and a column, no matrix product.
    """
    height, width = image.shape[-2:]
    row, column = _turned_centres(height, width, angle)
    grid = torch.empty(1, height, width, 2)  # of x, y from -1 to 1
    torch.add((1 - width) / width, column, alpha=2 / width, out=grid[0, ..., 0])
    torch.add((1 - height) / height, row, alpha=2 / height, out=grid[0, ..., 1])
    turned = grid_sample(image.as_subclass(Tensor).float().unsqueeze(0), grid, align_corners=False)[0]
    rotated: Tensor = tv_tensors.wrap(turned.round_().to(torch.uint8), like=image)
    return rotated


def resize(label: Label, size: Sequence[int], max_size: int | None = None, **_: Any) -> Label:
    """Scale to (height, width)."""
    if max_size is not None:
        raise TypeError("labels are resized to a height and a width: max_size is not supported")
    return resized_crop(label, 0, 0, label.shape[-2], label.shape[-1], size)


def resized_crop(label: Label, top: int, left: int, height: int, width: int, size: Sequence[int], **_: Any) -> Label:
    """Scale a window, which may reach beyond the label, to (height, width)."""
    source, outside = _window(top, left, height, width, tuple(size), tuple(label.shape[-2:]))
    return _gather(label, source, outside)


def pad(label: Label, padding: Sequence[int], padding_mode: str = "constant", **_: Any) -> Label:
    """Add void borders: left, top, right, bottom."""
    if padding_mode != "constant" or len(padding) != 4:
        raise TypeError("labels are padded with void, by four numbers: left, top, right, bottom")
    left, top, right, bottom = padding
    size = (label.shape[-2] + top + bottom, label.shape[-1] + left + right)
    return resized_crop(label, -top, -left, *size, size)


def zoom_depth(label: Label, top: int, left: int, height: int, width: int, size: Sequence[int], **_: Any) -> Label:
    """`resized_crop` of depth: a window shown in the place of the whole picture is magnified, and so is nearer."""
    factor = math.sqrt(label.shape[-2] * label.shape[-1] / (height * width))
    return _like(label, _values(resized_crop(label, top, left, height, width, size)).div_(factor))


def flip_normals(label: Label) -> Label:
    """`horizontal_flip` of normals."""
    flipped = _values(horizontal_flip(label))
    flipped.select(-3, 0).neg_()
    return _like(label, flipped)


def rotate_normals(label: Label, angle: float, **options: Any) -> Label:
    """`rotate` of normals. Their y points up, so the picture's counter-clockwise is theirs."""
    rotated = _values(rotate(label, angle, **options))
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    x, y = rotated.select(-3, 0), rotated.select(-3, 1)
    turned_y = (sin * x).add_(y, alpha=cos)
    x.mul_(cos).sub_(y, alpha=sin)
    y.copy_(turned_y)
    return _like(label, rotated)


def _values(label: Label) -> Tensor:
    values: Tensor = label.as_subclass(Tensor)
    return values


def _like(label: Label, values: Tensor) -> Label:
    wrapped: Label = tv_tensors.wrap(values, like=label)
    return wrapped


def _gather(label: Label, source: Tensor, outside: Tensor | None) -> Label:
    """A new label: pixel by pixel the one at an index `source` (h, w) into (H * W), or void where `outside` (h, w)."""
    moved = _values(label).flatten(-2).index_select(-1, source.flatten()).unflatten(-1, source.shape)
    return _like(label, moved if outside is None else moved.masked_fill_(outside, label.void))


# All labels of a sample move alike, so the last few answers are kept; one index into planes is faster than one into
# rows and one into columns.


@functools.lru_cache(maxsize=2)
def _turned(height: int, width: int, angle: float) -> tuple[Tensor, Tensor]:
    """The source of each pixel of the rotated picture, and whether it lies outside: (H, W) int32 and boolean."""
    row, column = (centre.round_() for centre in _turned_centres(height, width, angle))
    outside = (row < 0) | (row >= height) | (column < 0) | (column >= width)
    return row.clamp_(0, height - 1).int() * width + column.clamp_(0, width - 1).int(), outside


def _turned_centres(height: int, width: int, angle: float) -> tuple[Tensor, Tensor]:
    """Where the centre of each pixel of the rotated picture was: row and column, (H, W) float32."""
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    y = torch.arange(height).sub((height - 1) / 2).unsqueeze(1)  # (H, 1), down
    x = torch.arange(width).sub((width - 1) / 2)  # (W,), right
    return sin * x + (cos * y + (height - 1) / 2), cos * x - (sin * y - (width - 1) / 2)


@functools.lru_cache(maxsize=2)
def _window(
    top: int, left: int, height: int, width: int, size: tuple[int, int], limits: tuple[int, int]
) -> tuple[Tensor, Tensor | None]:
    """The source of each pixel of the scaled window (h, w) int32, and whether it lies outside, if any can (h, w)."""
    rows, outside_rows = _nearest(top, height, size[0], limits[0])
    columns, outside_columns = _nearest(left, width, size[1], limits[1])
    source = rows.unsqueeze(1) * limits[1] + columns
    inside = top >= 0 and left >= 0 and top + height <= limits[0] and left + width <= limits[1]
    return source, None if inside else outside_rows.unsqueeze(1) | outside_columns


def _nearest(start: int, length: int, size: int, limit: int) -> tuple[Tensor, Tensor]:
    """Of `size` pixels that show `length` from `start` on: the one with the nearest centre; is it out of [0, limit)?"""
    index = start + (2 * torch.arange(size) + 1) * length // (2 * size)
    return index.clamp(0, limit - 1).int(), (index < 0) | (index >= limit)


register_label(ClassMap)
register_label(BinaryMap)
register_label(DepthMap, resized_crop=zoom_depth)
register_label(NormalMap, horizontal_flip=flip_normals, rotate=rotate_normals)
