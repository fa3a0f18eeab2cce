"""Colours of labels and predictions, chosen in OKLab so that they look as far apart, or as even, as they should.

OKLab: Björn Ottosson, "A perceptual color space for image processing", 2020.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from ..labels import IGNORE

_RGB_TO_LMS = torch.tensor(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ],
    dtype=torch.float64,
)
_LMS_TO_LAB = torch.tensor(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ],
    dtype=torch.float64,
)


@functools.cache
def class_palette() -> Tensor:
    """A colour for each of the classes 0 ... 254, and black for void: (256, 3) uint8.

    Class 0, often the background, is grey; each next class takes the colour farthest from all before it and from
    white. The first classes are thus the farthest apart. Nothing dark is taken: that would pass for void.
    """
    levels = torch.arange(0, 256, 17)
    colours = torch.cartesian_prod(levels, levels, levels)  # (4096, 3)
    lab = _to_oklab(colours / 255.0)
    colours, lab = colours[lab[:, 0] > 0.4], lab[lab[:, 0] > 0.4]
    white, grey = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.45, 0.0, 0.0])
    distance = (lab - white).norm(dim=-1)
    chosen = int((lab - grey).norm(dim=-1).argmin())
    palette = torch.zeros(256, 3, dtype=torch.uint8)
    for index in range(IGNORE):
        palette[index] = colours[chosen]
        distance = distance.minimum((lab - lab[chosen]).norm(dim=-1))
        chosen = int(distance.argmax())
    return palette


@functools.cache
def depth_palette() -> Tensor:
    """256 colours from near, a pale yellow, through red to far, a dark violet: (256, 3) uint8.

    Lightness falls evenly, so equal steps of depth look equal, in print without colours too.
    """
    t = torch.linspace(0, 1, 256, dtype=torch.float64)
    lightness = 0.96 - 0.74 * t
    chroma = 0.06 + 0.11 * torch.sin(math.pi * t)
    hue = torch.deg2rad(100 - 180 * t)
    lab = torch.stack([lightness, chroma * hue.cos(), chroma * hue.sin()], dim=-1)
    return (255 * _from_oklab(lab)).round().to(torch.uint8)


def paint_classes(classes: Tensor) -> Tensor:
    """Classes and void in the colours of `class_palette`: (H, W) integers -> (3, H, W) uint8."""
    return class_palette()[classes.long()].permute(2, 0, 1)


def paint_depth(depth: Tensor) -> Tensor:
    """Near bright, far dark, void (0) black: (H, W) metres -> (3, H, W) uint8.

    The scale runs from the 2nd to the 98th percentile of the picture's own depths, so a few outliers do not darken it.
    """
    valid = depth > 0
    if not bool(valid.any()):
        return torch.zeros(3, *depth.shape, dtype=torch.uint8)
    values = depth[valid].double()
    values = values[
        :: math.ceil(len(values) / 2**20)
    ]  # a million depths say enough, and quantile takes no more than 16
    near, far = torch.quantile(values, torch.tensor([0.02, 0.98], dtype=torch.float64)).tolist()
    position = (depth.double() - near) / max(far - near, 1e-6)
    painted = depth_palette()[(255 * position.clamp(0, 1)).long()].permute(2, 0, 1)
    return torch.where(valid, painted, 0)


def paint_normals(normals: Tensor) -> Tensor:
    """The usual (n + 1) / 2, void black: (3, H, W) unit or 0 -> (3, H, W) uint8."""
    painted = (127.5 * (normals.clamp(-1, 1) + 1)).round().to(torch.uint8)
    return torch.where(normals.square().sum(0) > 0.25, painted, 0)


def paint_share(share: Tensor) -> Tensor:
    """From dark grey for 0 to white for 1; void (255) is black, which 0 is not: (H, W) -> (3, H, W) uint8."""
    grey = (40 + 215 * share.clamp(0, 1)).round().to(torch.uint8)
    return torch.where(share == IGNORE, 0, grey).expand(3, -1, -1).contiguous()


def _to_oklab(srgb: Tensor) -> Tensor:
    """sRGB in [0, 1] -> OKLab, (..., 3) float64."""
    srgb = srgb.double()
    linear = torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    return (linear @ _RGB_TO_LMS.T).clamp(min=0) ** (1 / 3) @ _LMS_TO_LAB.T


def _from_oklab(lab: Tensor) -> Tensor:
    """OKLab -> sRGB, clipped to [0, 1], (..., 3) float64."""
    linear = ((lab @ torch.linalg.inv(_LMS_TO_LAB).T) ** 3 @ torch.linalg.inv(_RGB_TO_LMS).T).clamp(0, 1)
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
