"""Metrics of depth and surface normals, over all annotated pixels at once."""

from __future__ import annotations

import torch
from torch import Tensor

from ..labels import DepthMap, NormalMap
from .totals import TotalsMetric

ANGLES = (11.25, 22.5, 30.0)  # degrees below which papers count normals
POWERS = (1, 2, 3)  # of 1.25, within which papers count depths
NEAREST = 1e-3  # metres: a predicted depth below it counts as it in a logarithm


def depths(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """prediction, target (B, 1, H, W) in metres -> the same in double precision, 1 where void, and which are valid"""
    valid = DepthMap.valid(target).unsqueeze(1)
    return torch.where(valid, prediction, 1.0).double(), torch.where(valid, target, 1.0).double(), valid


def angles(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Degrees between normals of any length, 0 where void, and which are valid.

    prediction, target (B, 3, H, W) -> (B, H, W) float64, boolean; a prediction of length 0 is 90 degrees off.
    """
    valid = NormalMap.valid(target)
    p, t = prediction.double(), target.double()
    lengths = (p.square().sum(1) * t.square().sum(1)).sqrt()
    cosine = (p * t).sum(1) / lengths.clamp(min=1e-30)
    return torch.rad2deg(torch.where(valid, cosine, 1.0).clamp(-1, 1).acos()), valid


class DepthErrors(TotalsMetric):
    """Totals: squared, absolute, relative and squared logarithmic error, pixels within 1.25, its square and its cube,
    annotated pixels."""

    higher_is_better = False

    def __init__(self) -> None:
        super().__init__("depth_errors", 8)

    def sums(self, prediction: Tensor, target: Tensor) -> Tensor:
        """prediction, target (B, 1, H, W) in metres -> (8,)"""
        p, t, valid = depths(prediction, target)
        error, log = (p - t).abs(), (p.clamp(min=NEAREST) / t).log()
        within = [(valid & (p < factor * t) & (t < factor * p)).sum() for factor in (1.25**power for power in POWERS)]
        return torch.stack(
            [error.square().sum(), error.sum(), (error / t).sum(), log.square().sum(), *within, valid.sum()]
        )


class DepthRMSE(DepthErrors):
    """Root of the mean squared error, in metres."""

    def compute(self) -> Tensor:
        return (self.totals[0] / self.totals[-1]).sqrt()


class AbsError(DepthErrors):
    """Mean absolute error, in metres."""

    def compute(self) -> Tensor:
        return self.totals[1] / self.totals[-1]


class AbsRel(DepthErrors):
    """Mean absolute error relative to the label, as a fraction."""

    def compute(self) -> Tensor:
        return self.totals[2] / self.totals[-1]


class LogRMSE(DepthErrors):
    """Root of the mean squared difference of natural logarithms; a prediction below 1 mm counts as 1 mm."""

    def compute(self) -> Tensor:
        return (self.totals[3] / self.totals[-1]).sqrt()


class DeltaShare(DepthErrors):
    """Share of pixels whose depth is right within a factor of 1.25 to the power of `power`, in percent.

    Args:
        power: one of `POWERS`.
    """

    higher_is_better = True

    def __init__(self, power: int = 1) -> None:
        super().__init__()
        self.position = 4 + POWERS.index(power)

    def compute(self) -> Tensor:
        return 100 * self.totals[self.position] / self.totals[-1]


class Angles(TotalsMetric):
    """Totals: angle, its square, pixels below each of `ANGLES`, annotated pixels."""

    higher_is_better = False

    def __init__(self) -> None:
        super().__init__("angles", 3 + len(ANGLES))

    def sums(self, prediction: Tensor, target: Tensor) -> Tensor:
        """prediction, target (B, 3, H, W) of any length -> (6,)"""
        angle, valid = angles(prediction, target)
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
