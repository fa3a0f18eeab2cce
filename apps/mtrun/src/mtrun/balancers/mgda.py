"""MGDA (Désidéri, 2012; Sener and Koltun, NeurIPS 2018, https://arxiv.org/abs/1810.04650, algorithm 2)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mt_core.errors import ConfigError

from .aggregator import Aggregator


@dataclass
class MGDA(Aggregator):
    """The shortest vector among the convex combinations of the gradients: it descends for every task, or is 0.

        min_a || sum_k a_k g_k ||^2   subject to   a_k >= 0, sum_k a_k = 1

    Implemented by TorchJD with the Frank-Wolfe method, which is exact for two tasks.

    Attributes:
        epsilon: the step of the method below which it ends.
        max_iters: steps of the method, at most.

    Raises:
        ConfigError: if an option is out of range, or TorchJD is not installed.
    """

    epsilon: float = 1e-3
    max_iters: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.epsilon > 0:
            raise ConfigError(f"balancer.epsilon={self.epsilon}: expected a step above 0")
        if self.max_iters < 1:
            raise ConfigError(f"balancer.max_iters={self.max_iters}: expected at least 1")

    def weigh(self, gramian: Tensor, step: int) -> Tensor:
        from torchjd.aggregation import MGDAWeighting

        return MGDAWeighting(self.epsilon, self.max_iters)(gramian)
