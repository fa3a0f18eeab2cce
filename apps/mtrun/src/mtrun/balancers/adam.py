"""Adam for a handful of weights, of which some may sit a step out."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

BETAS, EPSILON = (0.9, 0.999), 1e-8


def moments(count: int) -> dict[str, Tensor]:
    """The state of `adam` before its first step: (K,) each; every weight counts its own steps."""
    return {name: torch.zeros(count, dtype=torch.float64) for name in ("first", "second", "steps")}


def adam(state: Mapping[str, Tensor], gradient: Tensor, taking: Tensor, rate: float) -> Tensor:
    """What one step of Adam (Kingma and Ba, 2015, algorithm 1) adds to the weights; changes the state.

    Args:
        state: of `moments`.
        gradient: (K,) float64
        taking: (K,) bool, the weights that take part; the others get 0 and keep their moments, as parameters without
            a gradient do in `torch.optim.Adam`.
        rate: the learning rate.
    """
    first, second, steps = state["first"], state["second"], state["steps"]
    steps += taking
    for moment, value, beta in ((first, gradient, BETAS[0]), (second, gradient.square(), BETAS[1])):
        moment.copy_(torch.where(taking, beta * moment + (1 - beta) * value, moment))
    mean, power = first / (1 - BETAS[0] ** steps), second / (1 - BETAS[1] ** steps)
    return torch.where(taking, -rate * mean / (power.sqrt() + EPSILON), 0.0)
