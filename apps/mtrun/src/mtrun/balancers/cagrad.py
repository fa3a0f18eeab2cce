"""CAGrad, conflict-averse descent (Liu et al., NeurIPS 2021, https://arxiv.org/abs/2110.14048, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from mt_core.errors import ConfigError

from .aggregator import Aggregator


@dataclass
class CAGrad(Aggregator):
    """The direction near the mean gradient that serves the worst-served task best.

        max_d min_k g_k.d   subject to   || d - g_0 || <= c || g_0 ||,   g_0 = mean_k g_k

    Implemented by TorchJD, which solves the dual with cvxpy and Clarabel.

    Attributes:
        c: radius of the search, relative to the mean gradient's norm; 0 gives the mean; 0.4 is the paper's for NYUv2.

    Raises:
        ConfigError: if `c` is below 0, or something it needs is not installed.
    """

    needs: ClassVar[tuple[str, ...]] = ("torchjd", "cvxpy", "clarabel")

    c: float = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.c < float("inf"):
            raise ConfigError(f"balancer.c={self.c}: expected a radius from 0 on")

    def weigh(self, gramian: Tensor, step: int) -> Tensor:
        from torchjd.aggregation import CAGradWeighting

        # The coefficients do not depend on the gradients' scale; TorchJD takes a trace below 1e-4 for none at all.
        return CAGradWeighting(c=self.c)(gramian / gramian.trace())
