"""Dynamic weight average (Liu, Johns and Davison, CVPR 2019, https://arxiv.org/abs/1803.10704, eq. 7)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mt_core.errors import ConfigError

from . import Balancer


@dataclass
class DWA(Balancer):
    """More weight to the tasks whose loss falls slowly, from one epoch to the next.

        w_k(t-1) = L_k(t-1) / L_k(t-2),   lambda_k(t) = K exp(w_k(t-1) / T) / sum_i exp(w_i(t-1) / T)

    where L_k(t) is the loss averaged over the steps of epoch t in which the task had labels. In the first two epochs,
    and for a task that had no label in one of the last two, w_k = 1.

    Attributes:
        temperature: T; larger makes the weights more alike.
        every: steps that one average is taken over; null: an epoch, as in the paper.

    Raises:
        ConfigError: if an option is out of range.
    """

    temperature: float = 2.0
    every: int | None = None

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ConfigError(f"balancer.temperature={self.temperature}: expected a number above 0")
        if self.every is not None and self.every < 1:
            raise ConfigError(f"balancer.every={self.every}: expected at least 1 step, or null for an epoch")

    def initial(self) -> dict[str, Tensor]:
        names = ("sum", "count", "last", "before")
        every = {name: torch.zeros(len(self.tasks), dtype=torch.float64) for name in names}
        return {**every, "periods": torch.tensor(0)}

    def weights(self) -> Tensor:
        last, before = self.kept["last"], self.kept["before"]
        known = (last > 0) & (before > 0)
        ratio = torch.where(known, last / torch.where(known, before, 1.0), 1.0)
        return (len(self.tasks) * torch.softmax(ratio / self.temperature, 0)).float()

    def update(self, losses: Tensor, step: int) -> None:
        losses = losses.detach().double().cpu()
        self.kept["sum"] += losses
        self.kept["count"] += losses > 0
        periods = step // (self.every or self.steps_per_epoch)
        if periods > int(self.kept["periods"]):  # also where the very step that ended one was refused
            self.kept["periods"].fill_(periods)
            self.kept["before"].copy_(self.kept["last"])
            self.kept["last"].copy_(self.kept["sum"] / self.kept["count"].clamp(min=1))
            self.kept["sum"].zero_()
            self.kept["count"].zero_()
