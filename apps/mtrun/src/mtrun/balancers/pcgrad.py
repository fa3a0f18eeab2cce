"""PCGrad, gradient surgery (Yu et al., NeurIPS 2020, https://arxiv.org/abs/2001.06782, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .aggregator import Aggregator

_PROJECTIONS = 3  # keeps this use of the seed apart from those in `mtrun.data`


@dataclass
class PCGrad(Aggregator):
    """Sums the gradients after taking out of each, one by one, its part against every other, in random order.

    For each task k, g = g_k; for the other tasks j in random order: g -= min(0, g.g_j) / ||g_j||^2 g_j.

    The orders follow from the seed and the step. Implemented by TorchJD.
    """

    def weigh(self, gramian: Tensor, step: int) -> Tensor:
        from torchjd.aggregation import PCGradWeighting

        with torch.random.fork_rng(devices=[]):  # TorchJD draws from the CPU's global generator
            torch.default_generator.manual_seed(order_seed(self.seed, step))
            return PCGradWeighting()(gramian)


def order_seed(seed: int, step: int) -> int:
    """What the orders of a step are drawn from."""
    return int(np.random.SeedSequence((seed, _PROJECTIONS, step)).generate_state(1, np.uint64)[0]) >> 1
