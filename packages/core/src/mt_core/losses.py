"""Losses of dense prediction: means over the annotated pixels, and exactly 0 (zero gradient) where there are none.

Each takes logits (B, N, H, W) of any floating type and a target with void pixels, and returns a scalar of at least
single precision, whatever autocast does around it. Shapes never depend on values, so a compiler traces them whole and
the host never waits for the device.

Where a batch is dealt out to several processes, each mean is over a part of it, and `mt_core.model.Objective` weighs
the parts by their annotated pixels. Only what depends on the batch as a whole has to ask for it: the class balance.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .distributed import everywhere
from .labels import IGNORE, DepthMap, NormalMap

EDGE_WEIGHT = 0.95  # of the rare edge pixels; the others weigh 0.05 (ASTMT, MTLoRA)
SHORTEST = 1e-4  # logits of normals below this length are not stretched to 1, which bounds the gradient by the inverse


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy. logits (B, N, H, W), target (B, H, W) integers, 255 void -> ()"""
    total = F.cross_entropy(_precise(logits), target, ignore_index=IGNORE, reduction="sum")
    return total / (target != IGNORE).sum().clamp(min=1)


def balanced_bce(logits: Tensor, target: Tensor) -> Tensor:
    """Class-balanced binary cross-entropy (HED, eq. 2, over the batch instead of a picture).

    Positives weigh the share of negatives among the batch's annotated pixels, and vice versa.
    logits (B, 1, H, W), target (B, 1, H, W) of 0 and 1, 255 void -> ()
    """
    valid = target != IGNORE
    counts = everywhere(torch.stack([(valid & (target < 0.5)).sum(), valid.sum()]))  # of the batch, wherever it is
    negatives = counts[0] / counts[1].clamp(min=1)
    return _weighted_bce(logits, target, negatives, 1 - negatives)


def edge_bce(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy with a fixed weight of 0.95 for positives and 0.05 for negatives.

    logits (B, 1, H, W), target (B, 1, H, W) of 0 and 1, 255 void -> ()
    """
    return _weighted_bce(logits, target, EDGE_WEIGHT, 1 - EDGE_WEIGHT)


def depth_l1(logits: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error in metres. logits (B, 1, H, W), target (B, 1, H, W), 0 void -> ()"""
    valid = DepthMap.valid(target).unsqueeze(1)  # (B, 1, H, W)
    return _mean((_precise(logits) - target).abs(), valid)


def normals_l1(logits: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error between the components of unit vectors (MTLoRA).

    logits (B, 3, H, W) of any length, target (B, 3, H, W) unit, 0 void -> ()
    """
    valid = NormalMap.valid(target).unsqueeze(1)  # (B, 1, H, W)
    return _mean((unit_vectors(_precise(logits), SHORTEST) - target).abs(), valid.expand_as(target))


def normals_cosine(logits: Tensor, target: Tensor) -> Tensor:
    """Mean of 1 - cosine of the angle to the annotated normal (ToRA).

    logits (B, 3, H, W) of any length, target (B, 3, H, W) unit, 0 void -> ()
    """
    valid = NormalMap.valid(target)  # (B, H, W)
    return _mean(1 - (unit_vectors(_precise(logits), SHORTEST) * target).sum(1), valid)


def unit_vectors(vectors: Tensor, shortest: float) -> Tensor:
    """(B, 3, H, W) of any length -> of length 1, or less where it was below `shortest`.

    Several times faster than `torch.nn.functional.normalize`, which is slow over a strided axis.
    """
    squared = vectors.square().sum(1, keepdim=True)  # (B, 1, H, W)
    return vectors * squared.clamp(min=shortest**2).rsqrt()


def _precise(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _mean(values: Tensor, valid: Tensor) -> Tensor:
    return torch.where(valid, values, 0.0).sum() / valid.sum().clamp(min=1)


def _weighted_bce(
    logits: Tensor, target: Tensor, positive_weight: float | Tensor, negative_weight: float | Tensor
) -> Tensor:
    """Mean over annotated pixels of weight x binary cross-entropy."""
    valid = target != IGNORE
    x = _precise(logits)
    positive = -positive_weight * F.logsigmoid(x)
    negative = -negative_weight * F.logsigmoid(-x)
    return _mean(torch.where(target > 0.5, positive, negative), valid)
