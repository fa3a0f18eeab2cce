"""GradNorm (Chen, Badrinarayanan, Lee and Rabinovich, ICML 2018, https://arxiv.org/abs/1711.02257)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mt_core.errors import ConfigError

from . import Balancer
from .adam import adam, moments

LOWEST = 1e-3  # a task that is never wholly forgotten can come back


@dataclass
class GradNorm(Balancer):
    """Learns weights w_k with which the tasks' gradients have norms that suit the pace at which their losses fall.

        G_k = || w_k grad_W L_k ||,   r_k = (L_k / L_k(0)) / mean_i(L_i / L_i(0)),
        L_grad = sum_k | G_k - mean_i(G_i) r_k^alpha |   (eq. 2), the target held constant

    After each step Adam follows d L_grad / d w_k = sign(G_k - target_k) || grad_W L_k ||; then the weights, of which
    none may fall below 0.001, are scaled so that they sum to K. L_k(0) is the task's loss in the first step in which it
    has labels. A task without a label in a step takes no part in its means and keeps its weight, up to that scaling.

    The paper takes for W the last layer that all tasks share, to save time. Adapters have no such layer (some fork in
    the first block, some never): here W is all shared trainable parameters, whose gradients are known anyway.

    Attributes:
        alpha: strength of the pull towards one pace; 0 makes the norms equal; 1.5 is the paper's for NYUv2.
        lr: learning rate of the weights; 0.025 in the paper (section 5.2), with Adam.

    Raises:
        ConfigError: if an option is out of range.
    """

    jacobian: ClassVar[bool] = True

    alpha: float = 1.5
    lr: float = 0.025

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < float("inf"):
            raise ConfigError(f"balancer.alpha={self.alpha}: expected a strength from 0 on")
        if not 0 < self.lr < float("inf"):
            raise ConfigError(f"balancer.lr={self.lr}: expected a rate of the weights above 0")

    def start(self, tasks: Sequence[str], seed: int, steps_per_epoch: int) -> None:
        super().start(tasks, seed, steps_per_epoch)
        self.norms = torch.zeros(len(tasks), dtype=torch.float64)  # of the step that is being taken

    def initial(self) -> dict[str, Tensor]:
        count = len(self.tasks)
        return {
            "weights": torch.ones(count, dtype=torch.float64),
            "start": torch.zeros(count, dtype=torch.float64),  # 0: not seen yet
            **moments(count),
        }

    def weights(self) -> Tensor:
        return self.kept["weights"].float()

    def combine(self, jacobian: Tensor, step: int) -> Tensor:
        self.norms = torch.linalg.vector_norm(jacobian, dim=1, dtype=torch.float64).cpu()
        return super().combine(jacobian, step)

    def update(self, losses: Tensor, step: int) -> None:
        losses, weights, start = losses.detach().double().cpu(), self.kept["weights"], self.kept["start"]
        start.copy_(torch.where(start > 0, start, losses.clamp(min=0)))
        taking = (losses > 0) & (self.norms > 0)
        if not taking.any():
            return
        norms = weights * self.norms  # G
        pace = torch.where(taking, losses / torch.where(taking, start, 1.0), 0.0)
        target = norms[taking].mean() * (pace / pace[taking].mean()) ** self.alpha
        weights += adam(self.kept, torch.sign(norms - target) * self.norms, taking, self.lr)
        weights.clamp_(min=LOWEST)
        weights *= len(self.tasks) / weights.sum()
