"""What the tests of balancers share: literal gradients to balance, and a balancer that has been started."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mtrun.balancers import BALANCERS, Balancer

TASKS = ("semseg", "depth", "normals", "saliency")
AGGREGATORS = ("pcgrad", "cagrad", "mgda", "nash_mtl", "imtl_g", "aligned_mtl", "upgrad")


def started(
    name: str, tasks: Sequence[str] = TASKS, seed: int = 0, steps_per_epoch: int = 3, **options: Any
) -> Balancer:
    """A balancer that is ready for its first step."""
    balancer: Balancer = BALANCERS[name](**options)
    balancer.start(tasks, seed, steps_per_epoch)
    return balancer


def jacobian(seed: int, tasks: int = 4, parameters: int = 12) -> Tensor:
    """Gradients that conflict, of norms that differ by an order of magnitude: (K, P) float64"""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(tasks, parameters, generator=generator, dtype=torch.float64)
    rows -= 0.8 * rows.mean(0)
    return rows * torch.logspace(0, 1, tasks, dtype=torch.float64)[:, None]
