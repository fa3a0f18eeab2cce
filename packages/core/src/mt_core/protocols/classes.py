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
        super().__init__(classes, classes)

    def sums(self, prediction: Tensor, target: Tensor) -> Tensor:
        """prediction, target (B, H, W) -> (N, N)"""
        n = len(self.totals)
        cell = torch.where(ClassMap.valid(target), target * n + prediction, n * n)
        return torch.bincount(cell.flatten(), minlength=n * n + 1)[:-1].view(n, n)


class MeanIoU(Confusion):
    """Mean over classes of intersection over union, in percent; a class that occurs nowhere counts 0."""

    def compute(self) -> Tensor:
        hits = self.totals.diag()
        union = self.totals.sum(0) + self.totals.sum(1) - hits
        return torch.where(self.totals.sum() > 0, 100 * (hits / union.clamp(min=1)).mean(), torch.nan)


class PixelAccuracy(Confusion):
    """Share of the annotated pixels whose class is right, in percent."""

    def compute(self) -> Tensor:
        return 100 * self.totals.trace() / self.totals.sum()
