"""Metrics of depth and surface normals, over all annotated pixels at once."""

from __future__ import annotations

import torch
from torch import Tensor

from ..labels import DepthMap, NormalMap
from .totals import TotalsMetric

ANGLES = (11.25, 22.5, 30.0)  # degrees below which papers count normals


class DepthErrors(TotalsMetric):
    """Totals: squared error, error relative to the label, pixels within a factor of 1.25, annotated pixels."""

    higher_is_better = False

    def __init__(self) -> None:
        super().__init__(4)

    def sums(self, prediction: Tensor, target: Tensor) -> Tensor:
        """prediction, target (B, 1, H, W) in metres -> (4,)"""
        valid = DepthMap.valid(target).unsqueeze(1)
        p, t = torch.where(valid, prediction, 1.0).double(), torch.where(valid, target, 1.0).double()
        within = valid & (p < 1.25 * t) & (t < 1.25 * p)
        return torch.stack([(p - t).square().sum(), ((p - t).abs() / t).sum(), within.sum(), valid.sum()])


class DepthRMSE(DepthErrors):
    """Root of the mean squared error, in metres."""

    def compute(self) -> Tensor:
        return (self.totals[0] / self.totals[3]).sqrt()


class AbsRel(DepthErrors):
    """Mean absolute error relative to the label, as a fraction."""

    def compute(self) -> Tensor:
        return self.totals[1] / self.totals[3]


class DeltaShare(DepthErrors):
    """Share of pixels whose depth is right within a factor of 1.25 (delta 1), in percent."""

    higher_is_better = True

    def compute(self) -> Tensor:
        return 100 * self.totals[2] / self.totals[3]


class Angles(TotalsMetric):
    """Totals: angle, its square, pixels below each of `ANGLES`, annotated pixels."""

    higher_is_better = False

    def __init__(self) -> None:
        super().__init__(3 + len(ANGLES))

    def sums(self, prediction: Tensor, target: Tensor) -> Tensor:
        """prediction, target (B, 3, H, W) of any length -> (6,); a prediction of length 0 is 90 degrees off"""
        valid = NormalMap.valid(target)  # (B, H, W)
        p, t = prediction.double(), target.double()
        lengths = (p.square().sum(1) * t.square().sum(1)).sqrt()
        cosine = (p * t).sum(1) / lengths.clamp(min=1e-30)
        angle = torch.rad2deg(torch.where(valid, cosine, 1.0).clamp(-1, 1).acos())  # 0 where void
        below = [(valid & (angle < limit)).sum() for limit in ANGLES]
        return torch.stack([angle.sum(), angle.square().sum(), *below, valid.sum()])


class MeanAngle(Angles):
    """Mean angle to the annotated normal, in degrees."""

    def compute(self) -> Tensor:
        return self.totals[0] / self.totals[-1]


class RMSAngle(Angles):
    """Root of the mean squared angle, in degrees."""

    def compute(self) -> Tensor:
        return (self.totals[1] / self.totals[-1]).sqrt()


class WithinAngle(Angles):
    """Share of pixels whose angle is below a limit, in percent.

    Args:
        limit: one of `ANGLES`, in degrees.
    """

    higher_is_better = True

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.position = 2 + ANGLES.index(limit)

    def compute(self) -> Tensor:
        return 100 * self.totals[self.position] / self.totals[-1]
