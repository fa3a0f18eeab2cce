"""Metrics that papers average over the batches of an evaluation: the mean, or the median, of every batch counts alike.

A batch is what one `update` is given: `trainer.batch_size` consecutive pictures of the split, the last one perhaps
smaller, as a single process sees them. Several processes must be dealt such batches whole (batch k to process k modulo
their number); then the sums and the numbers of batches add up, and the result is that of one process. A batch in
which no pixel is annotated is not counted.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .geometry import ANGLES, angles, depths
from .totals import TotalsMetric


def middle(values: Tensor, valid: Tensor) -> Tensor:
    """The median of the valid values, the mean of the two middle ones of an even number; infinite of none: ()"""
    ordered = torch.where(valid, values, torch.inf).flatten().sort().values
    count = valid.sum().clamp(min=1)
    places = torch.stack([(count - 1) // 2, count // 2])
    return ordered[places].mean()


class BatchMeans(TotalsMetric):
    """Totals: some values of each batch, and the number of batches. The result is the mean of one of the values.

    Args:
        family: names what the values are.
        size: how many values a batch has.
        position: which of them is the result.
        scale: what it is multiplied with.
    """

    higher_is_better = False

    def __init__(self, family: str, size: int, position: int, scale: float = 1.0) -> None:
        super().__init__(family, size + 1)
        self.position, self.scale = position, scale

    def sums(self, prediction: Tensor, target: Tensor) -> Tensor:
        """What `values` finds, and 1; or only 0 where nothing is annotated."""
        values, annotated = self.values(prediction, target)
        return torch.where(annotated, torch.cat([values, torch.ones_like(values[:1])]), 0.0)

    def values(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The values of a batch: (size,) float64, and whether there are any: () boolean."""
        raise NotImplementedError(f"{type(self).__name__} must say what counts of a batch: define `values`")

    def compute(self) -> Tensor:
        return self.scale * self.totals[self.position] / self.totals[-1]


class DepthBatches(BatchMeans):
    """Values of a batch: mean absolute error in metres, mean error relative to the label."""

    def __init__(self, position: int) -> None:
        super().__init__("depth_batches", 2, position)

    def values(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """prediction, target (B, 1, H, W) in metres -> (2,), ()"""
        p, t, valid = depths(prediction, target)
        error, count = (p - t).abs(), valid.sum()
        return torch.stack([error.sum(), (error / t).sum()]) / count, count > 0


class AngleBatches(BatchMeans):
    """Values of a batch: mean and median of the angle in degrees, shares of pixels below each of `ANGLES`."""

    def __init__(self, position: int, scale: float = 1.0) -> None:
        super().__init__("angle_batches", 2 + len(ANGLES), position, scale)

    def values(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """prediction, target (B, 3, H, W) of any length -> (5,), ()"""
        angle, valid = angles(prediction, target)
        count = valid.sum()
        below = [(valid & (angle < limit)).sum() for limit in ANGLES]
        return torch.stack([angle.sum() / count, middle(angle, valid), *(share / count for share in below)]), count > 0


class BatchAbsError(DepthBatches):
    """Mean over batches of the mean absolute error, in metres."""

    def __init__(self) -> None:
        super().__init__(0)


class BatchRelError(DepthBatches):
    """Mean over batches of the mean error relative to the label, as a fraction."""

    def __init__(self) -> None:
        super().__init__(1)


class BatchMeanAngle(AngleBatches):
    """Mean over batches of the mean angle, in degrees."""

    def __init__(self) -> None:
        super().__init__(0)


class BatchMedianAngle(AngleBatches):
    """Mean over batches of the median angle, in degrees."""

    def __init__(self) -> None:
        super().__init__(1)


class BatchWithinAngle(AngleBatches):
    """Mean over batches of the share of pixels whose angle is below a limit, in percent.

    Args:
        limit: one of `ANGLES`, in degrees.
    """

    higher_is_better = True

    def __init__(self, limit: float) -> None:
        super().__init__(2 + ANGLES.index(limit), 100.0)
