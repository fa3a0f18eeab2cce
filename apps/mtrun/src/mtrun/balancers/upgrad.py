"""UPGrad, Jacobian descent (Quinton and Rey, 2024, https://arxiv.org/abs/2406.16232)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .aggregator import Aggregator


@dataclass
class UPGrad(Aggregator):
    """The mean of the gradients, each projected onto the directions that are against no task.

        d = mean_k pi(g_k),   pi(g) = argmin_y || y - g ||^2   subject to   g_i.y >= 0 for all tasks i

    Implemented by TorchJD with our projection (`dual_cone`).
    """

    needs: ClassVar[tuple[str, ...]] = ("torchjd", "scipy")

    def weigh(self, gramian: Tensor, step: int) -> Tensor:
        from torchjd.aggregation import UPGradWeighting

        from .dual_cone import LeastSquares

        return UPGradWeighting(projector=LeastSquares())(gramian)
