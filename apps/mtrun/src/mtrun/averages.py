"""An exponential moving average of what is trained."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Average:
    """An average of a trained state; early on it forgets faster, so that it leaves the start.

    Args:
        live: tensors that share their memory with what is trained.
        decay: the share of the old average that stays at each update.
    """

    def __init__(self, live: Mapping[str, Tensor], decay: float) -> None:
        self.live, self.decay, self.updates = live, decay, 0
        self.values = {name: x.clone() for name, x in live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the live values."""
        self.updates += 1
        weight = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, x in self.live.items():
            if x.is_floating_point():
                self.values[name].lerp_(x, weight)
            else:
                self.values[name].copy_(x)

    @torch.no_grad()
    def restart(self, values: Mapping[str, Tensor], updates: int) -> None:
        """Go on from an average that was kept before; from the live values where there was none."""
        self.updates = updates
        for name, x in self.live.items():
            self.values[name].copy_(values.get(name, x))
