"""Low-rank updates of a linear layer (LoRA; Hu et al., ICLR 2022, section 4.1), for one input or a stack of streams.

An update is B A with A (r, k) and B (d, r). It is applied factor by factor: B A (d x k) is never built in training.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .adapter import SiteModule


def pair(base: nn.Linear, rank: int) -> tuple[nn.Parameter, nn.Parameter]:
    """A (r, k), Kaiming-uniform, and B (d, r), zero: the update B A starts as nothing."""
    a = base.weight.new_empty(rank, base.in_features)
    nn.init.kaiming_uniform_(a, a=math.sqrt(5))
    return nn.Parameter(a), nn.Parameter(base.weight.new_zeros(base.out_features, rank))


def add_low_rank(y: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """y + s B A x in two products, the sum in the second. y (..., d), x (..., k) -> (..., d)"""
    inner = (x @ a.T).flatten(0, -2)  # (M, r)
    rows = torch.addmm(y.flatten(0, -2).to(inner.dtype), inner, b.T.to(inner.dtype), alpha=scale)  # (M, d)
    return rows.view(y.shape)


def add_low_rank_per_stream(y: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """y_s + scale B_s A_s x_s for every stream s, in two batched products.

    Args:
        y: (S, M, d), or (1, M, d) where the streams share it.
        x: (S, M, k), or (1, M, k) where they share it: then all A_s are one product.
        a: (S, r, k).
        b: (S, d, r).
        scale: factor on every update.

    Returns:
        (S, M, d)
    """
    shared = len(x) == 1
    inner = (x[0] @ a.flatten(0, 1).T).unflatten(-1, (len(a), -1)).transpose(0, 1) if shared else x @ a.mT  # (S, M, r)
    base = y.expand(len(a), -1, -1).to(inner.dtype)
    return torch.baddbmm(base, inner, b.mT.to(inner.dtype), alpha=scale)  # (S, M, d)


class SharedLoRA(SiteModule):
    """y = W x + b + s B A x, the same for every stream. (..., k) -> (..., d)

    Args:
        base: the frozen layer, k in and d out.
        rank: of the update.
        scale: s.
        dropout: on the input of the update.
    """

    base: nn.Linear

    def __init__(self, base: nn.Linear, rank: int, scale: float, dropout: float) -> None:
        super().__init__(base)
        self.scale, self.dropout = scale, nn.Dropout(dropout)
        self.a, self.b = pair(base, rank)

    def forward(self, x: Tensor) -> Tensor:
        return add_low_rank(self.base(x), self.dropout(x), self.a, self.b, self.scale)

    def delta(self, task: str) -> Tensor | None:
        return self.scale * (self.b @ self.a)
