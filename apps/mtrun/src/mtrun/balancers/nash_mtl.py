"""Nash-MTL, multi-task learning as a bargaining game (Navon et al., ICML 2022, https://arxiv.org/abs/2202.01017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .aggregator import Aggregator

LARGEST = 1e6  # coefficient of a unit gradient beyond which float32 gradients cancel down to their rounding errors
ITERATIONS = 200
CLOSE = 1e-10


@dataclass
class NashMTL(Aggregator):
    """The Nash bargaining solution: the direction that maximises the product of what the tasks gain.

        d = sum_k a_k g_k   with   G a = 1 / a,  a > 0   (claim 3.1 and algorithm 1)

    It does not depend on the scale of any task's loss, and || d || = sqrt(K). Where no direction helps every task (a
    Pareto-stationary point) d = 0.

    Solved here, because TorchJD's version needs ECOS, which is GPL: G a = 1 / a is where the convex and self-concordant
    1/2 a^T G a - sum_k log a_k is smallest, and damped Newton steps reach it from anywhere. The paper approximates it
    by a sequence of convex programs; its code divides G by its norm and clips the norm of d at 1, which rescales d.
    """

    needs: ClassVar[tuple[str, ...]] = ()

    def weigh(self, gramian: Tensor, step: int) -> Tensor:
        norms = gramian.diagonal().sqrt()
        return bargain(gramian / norms[:, None] / norms) / norms


def bargain(cosines: Tensor) -> Tensor:
    """The a > 0 with C a = 1 / a, for unit gradients with these cosines; zeros where there is none.

    (K, K) -> (K,), double precision. The steps: Nesterov, Lectures on Convex Optimization, section 5.2.
    """
    a = torch.ones(len(cosines), dtype=cosines.dtype)
    for _ in range(ITERATIONS):
        gradient = cosines @ a - 1 / a
        hessian = cosines + torch.diag(a**-2)
        move = torch.linalg.solve(hessian, gradient)
        decrement = (gradient @ move).clamp(min=0).sqrt()
        a = a - move / (1 + decrement if decrement > 0.25 else 1)
        if a.max() > LARGEST:
            return torch.zeros_like(a)
        if decrement < CLOSE:
            break
    return a
