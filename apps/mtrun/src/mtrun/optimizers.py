"""Optimisers and learning rates."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from .recipe import Optimizer, Schedule, TrainerOptions

OPTIMIZERS: Mapping[Optimizer, Callable[..., torch.optim.Optimizer]] = {
    Optimizer.adamw: torch.optim.AdamW,
    Optimizer.adam: torch.optim.Adam,
}

# What is left of the way from the highest to the lowest rate, by the share of the steps after warm-up that are done.
SCHEDULES: Mapping[Schedule, Callable[[float], float]] = {
    Schedule.cosine: lambda done: (1 + math.cos(math.pi * done)) / 2,
    Schedule.linear: lambda done: 1 - done,
    Schedule.constant: lambda done: 1.0,
}

FUSED = ("cpu", "cuda")  # where torch has a fused kernel


def build_optimizer(
    parameters: Mapping[str, Tensor], options: TrainerOptions, device: torch.device, still: Collection[str] = ()
) -> torch.optim.Optimizer:
    """The optimiser of these parameters; biases, norms and other vectors are not decayed, as in timm's recipes.

    Args:
        parameters: by name.
        options: of the run.
        device: where they are.
        still: names of those that never get a gradient. An optimiser that is given zeros instead must not decay them.
    """
    decayed = {name for name, p in parameters.items() if p.ndim > 1 and "bias" not in name.split(".")} - set(still)
    groups: list[dict[str, Any]] = [
        {"params": [p for name, p in parameters.items() if name in decayed], "weight_decay": options.weight_decay},
        {"params": [p for name, p in parameters.items() if name not in decayed], "weight_decay": 0.0},
    ]
    return OPTIMIZERS[options.optimizer](
        [group for group in groups if group["params"]],
        lr=options.lr,
        betas=options.betas,
        fused=device.type in FUSED,
    )


def learning_rate(step: int, steps: int, options: TrainerOptions) -> float:
    """The rate of a step, counted from 0, of a run of `steps`: a linear warm-up, then the schedule."""
    warm = round(options.warmup * steps)
    if step < warm:
        return options.lr * (step + 1) / warm
    done = (step - warm) / max(1, steps - warm)
    return options.min_lr + (options.lr - options.min_lr) * SCHEDULES[options.schedule](done)
