"""Intersection over union near the borders of classes: Boundary IoU (Cheng et al., CVPR 2021, section 4)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..labels import ClassMap
from .totals import TotalsMetric

SHARE = 0.02  # of the picture's diagonal, as Cheng et al. have it: how wide the strip within a border is
OUTSIDE = -1  # of the picture: no class


class BoundaryIoU(TotalsMetric):
    """Mean over classes of the IoU of their strips, in percent, over the classes that occur in labels or predictions.

    The strip of a class is what lies in it within `distance` pixels, across or along, of what is not in it; the
    picture's border and void pixels are not in it, for the prediction as for the label. Totals: for each class the
    pixels of both strips, of the prediction's, of the label's; void pixels are in none.

    Args:
        classes: how many there are.
        share: how wide the strip is, as a share of the picture's diagonal; at least a pixel.
    """

    higher_is_better = True

    def __init__(self, classes: int, share: float = SHARE) -> None:
        super().__init__(f"strips within {share}", 3, classes)
        self.share = share

    def sums(self, prediction: Tensor, target: Tensor) -> Tensor:
        """prediction, target (B, H, W) -> (3, N)"""
        n = self.totals.shape[1]
        reach = distance(target.shape[-2:], self.share)
        prediction = torch.where(ClassMap.valid(target), prediction, ClassMap.void)
        predicted, annotated = strip(prediction, reach), strip(target, reach)
        both = predicted & annotated & (prediction == target)
        found = ((target, both), (prediction, predicted), (target, annotated))
        return torch.stack([torch.bincount(x[mask & (x != ClassMap.void)], minlength=n) for x, mask in found])

    def compute(self) -> Tensor:
        both, predicted, annotated = self.totals
        mean: Tensor = (100 * both / (predicted + annotated - both)).nanmean()
        return mean


def distance(size: torch.Size, share: float) -> int:
    """How many pixels wide a strip is in a picture of (height, width)."""
    return max(1, round(share * math.hypot(*size)))


def strip(classes: Tensor, reach: int) -> Tensor:
    """Where not all of the square of 2 `reach` + 1 pixels around is of the pixel's class: (B, H, W) -> (B, H, W).

    That is every class's mask without its erosion by the square, for all classes at once.
    """
    x = F.pad(classes.float()[:, None], [reach] * 4, value=OUTSIDE)
    least, most = -_largest(-x, reach), _largest(x, reach)
    return (least != most)[:, 0]


def _largest(x: Tensor, reach: int) -> Tensor:
    """Of a square around every pixel that has one: along rows, then along columns."""
    return F.max_pool2d(F.max_pool2d(x, (1, 2 * reach + 1), 1), (2 * reach + 1, 1), 1)
