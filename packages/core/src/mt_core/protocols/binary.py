"""Metrics of saliency and edges: probabilities against yes or no, at the best of several thresholds.

A pixel is predicted yes where its probability is above the threshold.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..labels import BinaryMap
from .totals import TotalsMetric


def named(family: str, thresholds: Tensor) -> str:
    """The name of a family of metrics at these thresholds, and at no others."""
    return f"{family} at {', '.join(f'{x:g}' for x in thresholds.tolist())}"


def count_hits(probability: Tensor, target: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """True positives, false positives and false negatives of each picture at each of T ascending thresholds.

    probability, target (B, 1, H, W), thresholds (T,) -> 3 x (B, T) integers; void pixels are none of them.
    """
    B, T = len(target), len(thresholds)
    valid = BinaryMap.valid(target)  # (B, H, W)
    level = torch.bucketize(probability[:, 0].double(), thresholds)  # how many thresholds are below the probability
    truth = (target[:, 0] > 0.5) + 2 * torch.arange(B, device=target.device).view(B, 1, 1)
    cell = torch.where(valid, truth * (T + 1) + level, 2 * B * (T + 1))
    counts = torch.bincount(cell.flatten(), minlength=2 * B * (T + 1) + 1)[:-1].view(B, 2, T + 1)
    above = counts.flip(-1).cumsum(-1).flip(-1)[..., 1:]  # (B, 2, T)
    false, true = above.unbind(1)
    return true, false, counts[:, 1].sum(-1, keepdim=True) - true


class PictureScores(TotalsMetric):
    """Totals, over pictures and at each threshold: IoU, precision, recall, pictures with any annotation.

    In a picture without foreground, annotated or predicted, the IoU is 1, precision and recall are 0 (as in ASTMT).
    """

    higher_is_better = True

    thresholds: Tensor

    def __init__(self, thresholds: Tensor) -> None:
        super().__init__(named("picture_scores", thresholds), 4, len(thresholds))
        self.register_buffer("thresholds", thresholds, persistent=False)

    def sums(self, prediction: Tensor, target: Tensor) -> Tensor:
        """prediction, target (B, 1, H, W) -> (4, T)"""
        tp, fp, fn = (x.double() for x in count_hits(prediction, target, self.thresholds))  # (B, T)
        union = tp + fp + fn
        iou = torch.where(union > 0, tp / union.clamp(min=1), 1.0)
        precision, recall = tp / (tp + fp).clamp(min=1), tp / (tp + fn).clamp(min=1)
        counted = BinaryMap.valid(target).flatten(1).any(1, keepdim=True)  # (B, 1)
        return (torch.stack([iou, precision, recall, torch.ones_like(iou)]) * counted).sum(1)


class MaxIoU(PictureScores):
    """Mean over pictures of the foreground's IoU, at the best threshold, in percent."""

    def compute(self) -> Tensor:
        return 100 * (self.totals[0] / self.totals[3]).max()


class MaxF(PictureScores):
    """Harmonic mean of mean precision and mean recall over pictures, at the best threshold, in percent."""

    def compute(self) -> Tensor:
        precision, recall = self.totals[1] / self.totals[3], self.totals[2] / self.totals[3]
        return 100 * (2 * precision * recall / (precision + recall).clamp(min=1e-12)).max()


class MaxPixelF(TotalsMetric):
    """Harmonic mean of precision and recall over all pixels, at the best threshold for all pictures, in percent.

    No thinning, no tolerance: an edge one pixel beside the annotated one is a miss and a false alarm.
    Totals: true positives, false positives, false negatives at each threshold, and annotated pixels.
    """

    higher_is_better = True

    thresholds: Tensor

    def __init__(self, thresholds: Tensor) -> None:
        super().__init__(named("pixel_hits", thresholds), 4, len(thresholds))
        self.register_buffer("thresholds", thresholds, persistent=False)

    def sums(self, prediction: Tensor, target: Tensor) -> Tensor:
        """prediction, target (B, 1, H, W) -> (4, T)"""
        hits = torch.stack(count_hits(prediction, target, self.thresholds)).sum(1)  # (3, T)
        annotated = BinaryMap.valid(target).sum().expand(1, hits.shape[1])
        return torch.cat([hits, annotated])

    def compute(self) -> Tensor:
        tp, fp, fn, annotated = self.totals
        best = (2 * tp / (2 * tp + fp + fn).clamp(min=1)).max()
        return torch.where(annotated.sum() > 0, 100 * best, torch.nan)
