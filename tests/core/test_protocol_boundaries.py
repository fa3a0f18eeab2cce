"""Boundary IoU, against eroded masks of one class after another."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion
from torch import Tensor
from torchmetrics import Metric

from mt_core.protocols import PROTOCOLS, protocol
from mt_core.protocols.boundaries import BoundaryIoU, strip
from mt_core.tasks import HumanParts, Segmentation

from .protocol_literals import Batches, batch


def literal(batches: Batches, classes: int, share: float) -> float:
    """As Cheng et al. define it, the mask of one class of one picture at a time."""
    both, either = np.zeros(classes), np.zeros(classes)
    for predictions, targets in batches:
        for prediction, target in zip(predictions.numpy(), targets.numpy(), strict=True):
            width = max(1, round(share * math.hypot(*target.shape)))
            for one in range(classes):
                strips = []
                for mask in ((prediction == one) & (target != 255), target == one):
                    inner = binary_erosion(mask, np.ones((3, 3)), iterations=width, border_value=0)
                    strips.append(mask & ~inner)
                both[one] += (strips[0] & strips[1]).sum()
                either[one] += (strips[0] | strips[1]).sum()
    with np.errstate(invalid="ignore"):
        return float(np.nanmean(100 * both / either))


def measured(metric: Metric, batches: Batches) -> float:
    for prediction, target in batches:
        metric.update(prediction, target)
    return float(metric.compute())


def blocks(seed: int, size: tuple[int, int], void: float) -> tuple[Tensor, Tensor]:
    """Two pictures of patches of a few pixels, of classes 0 to 3, and predictions that are wrong in some."""
    g = torch.Generator().manual_seed(seed)

    def patches(high: int) -> Tensor:
        coarse = torch.randint(0, high, (2, 6, 6), generator=g)
        return coarse.repeat_interleave(5, 1).repeat_interleave(7, 2)[:, : size[0], : size[1]]

    target = patches(4)
    prediction = torch.where(patches(3) == 0, patches(4), target)
    return prediction, target.masked_fill(torch.rand(target.shape, generator=g) < void, 255)


@given(
    st.integers(0, 999),
    st.tuples(st.integers(4, 30), st.integers(4, 42)),
    st.sampled_from([0, 0.02, 0.4]),
    st.sampled_from([0.02, 0.1]),
)
@settings(max_examples=40)
def test_it_equals_its_literal_definition(seed: int, size: tuple[int, int], void: float, share: float) -> None:
    batches = [blocks(seed, size, void), blocks(seed + 1, size, 0)]
    assert measured(BoundaryIoU(5, share), batches) == pytest.approx(literal(batches, 5, share), rel=1e-12)


def test_a_class_is_cut_at_the_strip() -> None:
    # a square of 9 x 9, found one pixel to the right; 100 x 100 pixels: strips of round(0.02 * 141.4) = 3
    target, prediction = torch.zeros(2, 1, 100, 100, dtype=torch.long)
    target[:, 40:49, 40:49] = 1
    prediction[:, 40:49, 41:50] = 1
    assert strip(target, 3)[0, 40:49, 40:49].sum() == 81 - 9
    square = 6 * 8 + 3 * (2 + 2)  # six rows overlap whole, three in what both sides have
    around = (100**2 - 94**2) + (15**2 - 81) + (15**2 - 81)  # the picture's edge and the strip around the square, twice
    assert measured(BoundaryIoU(3), [(prediction, target)]) == pytest.approx(literal([(prediction, target)], 3, 0.02))
    both, predicted, annotated = _totals(prediction, target)
    assert (predicted[1], annotated[1], both[1]) == (72, 72, square)
    assert predicted[0] + annotated[0] == around + 100**2 - 94**2


def _totals(prediction: Tensor, target: Tensor) -> Tensor:
    metric = BoundaryIoU(3)
    metric.update(prediction, target)
    return metric.totals


def test_a_perfect_prediction_is_100_and_none_is_nan() -> None:
    _, target = batch("segmentation", 2, 1)
    prediction = target.where(target != 255, torch.tensor(3))  # void pixels count nowhere
    assert measured(BoundaryIoU(6), [(prediction, target)]) == 100
    assert math.isnan(measured(BoundaryIoU(6), [(prediction, torch.full_like(target, 255))]))


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_every_protocol_has_it_on_demand(name: str) -> None:
    rules = protocol(name)
    for task in (Segmentation("semseg", 4), HumanParts("human_parts")):
        if task.kind in rules.kinds:
            assert "boundary_iou" not in rules.metrics(task)
            assert "boundary_iou" in rules.thorough().metrics(task)
            assert "boundary_iou" not in rules.thorough().published(task)
