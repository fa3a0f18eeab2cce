"""Uncertainty weighting (Kendall, Gal and Cipolla, CVPR 2018, https://arxiv.org/abs/1705.07115)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mt_core.errors import ConfigError

from . import Balancer
from .adam import adam, moments


@dataclass
class Uncertainty(Balancer):
    """Learns a log-scale s_k for each task: minimises sum_k exp(-s_k) L_k + s_k over the model and s together.

    The weight of a task is exp(-s_k), which starts at 1 and tends to 1 / L_k. One form for all kinds of task: it is the
    likelihood of a Laplace distribution of scale exp(s), which fits the L1 losses of depth and normals. The paper has
    s = log sigma^2, L / (2 sigma^2) + log sigma for regression, which is half of this form, and L / sigma^2 + log sigma
    for classification, which is half of this form too, with s shifted by log 2: the factors of the kinds change where
    s starts and what it tends to, not what can be learned.

    The gradient 1 - exp(-s_k) L_k is exact; Adam follows it. A task without a label in a step keeps its s.

    Attributes:
        lr: learning rate of the log-scales; 0.025 is what the GradNorm paper trains them with (section 5.2).

    Raises:
        ConfigError: if `lr` is not above 0.
    """

    lr: float = 0.025

    def __post_init__(self) -> None:
        if not 0 < self.lr < float("inf"):
            raise ConfigError(f"balancer.lr={self.lr}: expected a rate of the log-scales above 0")

    def initial(self) -> dict[str, Tensor]:
        return {"scales": torch.zeros(len(self.tasks), dtype=torch.float64), **moments(len(self.tasks))}

    def weights(self) -> Tensor:
        return torch.exp(-self.kept["scales"]).float()

    def update(self, losses: Tensor, step: int) -> None:
        losses, scales = losses.detach().double().cpu(), self.kept["scales"]
        scales += adam(self.kept, 1 - torch.exp(-scales) * losses, losses > 0, self.lr)
