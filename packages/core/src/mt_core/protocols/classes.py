"""Metrics of class maps, from the confusion matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from ..labels import ClassMap
from .totals import TotalsMetric


class Confusion(TotalsMetric):
    """Totals: pixels by class of the label (rows) and of the prediction (columns)."""

    higher_is_better = True

    def __init__(self, classes: int) -> None:
        super().__init__("confusion", classes, classes)

    def sums(self, prediction: Tensor, target: Tensor) -> Tensor:
        """prediction, target (B, H, W) -> (N, N)"""
        n = len(self.totals)
        cell = torch.where(ClassMap.valid(target), target * n + prediction, n * n)
        return torch.bincount(cell.flatten(), minlength=n * n + 1)[:-1].view(n, n)

    def ious(self) -> Tensor:
        """Intersection over union of each class in percent: (N,); NaN where it is in neither labels nor predictions."""
        hits = self.totals.diag()
        return 100 * hits / (self.totals.sum(0) + self.totals.sum(1) - hits)


class MeanIoU(Confusion):
    """Mean over classes of intersection over union, in percent; a class that occurs nowhere counts 0."""

    def compute(self) -> Tensor:
        return torch.where(self.totals.sum() > 0, self.ious().nan_to_num(0).mean(), torch.nan)


class CompleteMeanIoU(Confusion):
    """Mean over classes of intersection over union, in percent; a class that occurs nowhere makes the mean NaN.

    As LibMTL has it: the class's 0 / 0 is NaN, and so is a mean that contains it.
    """

    def compute(self) -> Tensor:
        return self.ious().mean()


class PresentMeanIoU(Confusion):
    """Mean of intersection over union, in percent, over the classes that occur in labels or predictions."""

    def compute(self) -> Tensor:
        return self.ious().nanmean()


class PixelAccuracy(Confusion):
    """Share of the annotated pixels whose class is right, in percent."""

    def compute(self) -> Tensor:
        return 100 * self.totals.trace() / self.totals.sum()
