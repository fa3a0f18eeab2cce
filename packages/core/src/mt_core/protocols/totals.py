"""The base of all metrics: sums over pixels, pictures or batches, from which the result follows.

Sums of several processes add up to the sums of all, so a result does not depend on which process sees which batch, and
a process that sees none adds nothing. What depends on the batches themselves (`mt_core.protocols.batches`) needs them
dealt out whole.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


def check_shapes(metric: Metric, prediction: Tensor, target: Tensor) -> None:
    """Refuse a prediction that is not as large as its label.

    Raises:
        ValueError: if their shapes differ.
    """
    if prediction.shape != target.shape:
        raise ValueError(
            f"{type(metric).__name__}: the prediction is {tuple(prediction.shape)}, the label {tuple(target.shape)}; "
            f"expected the same shape"
        )


class TotalsMetric(Metric):
    """A metric that follows from sums; a family of metrics with the same `sums` shares them in a `MetricCollection`.

    A collection joins metrics whose states have the same names and, after the first batch, the same values. Two
    families may well agree after one batch (both find nothing in a picture without annotations), so the name of the
    state is the family's own: different families never share.

    Args:
        family: names the sums and everything they depend on, thresholds for instance.
        shape: of the sums.
    """

    is_differentiable = False
    full_state_update = False

    def __init__(self, family: str, *shape: int) -> None:
        super().__init__()
        self.family = family
        self.add_state(family, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    @property
    def totals(self) -> Tensor:
        """The sums so far."""
        totals: Tensor = getattr(self, self.family)
        return totals

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add a batch: a prediction as `Task.predict` gives it, and labels in which void pixels do not count.

        Raises:
            ValueError: if their shapes differ.
        """
        check_shapes(self, prediction, target)
        setattr(self, self.family, self.totals + self.sums(prediction, target))

    def sums(self, prediction: Tensor, target: Tensor) -> Tensor:
        """What a batch adds to the totals."""
        raise NotImplementedError(f"{type(self).__name__} must say what a batch adds to its totals: define `sums`")

    def compute(self) -> Tensor:
        """The result: () float64, NaN where nothing was annotated."""
        raise NotImplementedError(f"{type(self).__name__} must derive its result from the totals: define `compute`")
