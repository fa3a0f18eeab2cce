"""The base of all metrics: sums over pixels or pictures, from which the result follows.

Sums of several processes add up to the sums of all, so a result does not depend on how pictures are dealt out.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class TotalsMetric(Metric):
    """A metric that follows from sums; a family of metrics with the same `sums` shares them in a `MetricCollection`.

    Args:
        shape: of the sums.
    """

    is_differentiable = False
    full_state_update = False

    totals: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.add_state("totals", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add a batch: a prediction as `Task.predict` gives it, and labels in which void pixels do not count.

        Raises:
            ValueError: if their shapes differ.
        """
        if prediction.shape != target.shape:
            raise ValueError(
                f"{type(self).__name__}: the prediction is {tuple(prediction.shape)}, the label {tuple(target.shape)}; "
                f"expected the same shape"
            )
        self.totals += self.sums(prediction, target)

    def sums(self, prediction: Tensor, target: Tensor) -> Tensor:
        """What a batch adds to the totals."""
        raise NotImplementedError(f"{type(self).__name__} must say what a batch adds to its totals: define `sums`")

    def compute(self) -> Tensor:
        """The result: () float64, NaN where nothing was annotated."""
        raise NotImplementedError(f"{type(self).__name__} must derive its result from the totals: define `compute`")
