"""The projections of VMT-Adapter that all tasks share: x -> F = ReLU(x W_down) W_up (Xin et al., eq. 3 and 6).

All start with W_up = 0, so that F does; the papers do not say.
"""

from __future__ import annotations

import math
from typing import TypedDict

import torch
from torch import Tensor, nn


class Like(TypedDict):
    """Where and in which type parameters are made."""

    dtype: torch.dtype
    device: torch.device


class Projections(nn.Module):
    """F = ReLU(LN(x) W_down) W_up + b, of full matrices. (..., d) -> (..., d)

    The LayerNorm and the bias on the way up only are what prints the paper's counts; eq. 3 shows neither.

    Args:
        width: d.
        hidden: k.
        like: type and device of the parameters.
    """

    def __init__(self, width: int, hidden: int, like: Like) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, **like)
        self.down = nn.Linear(width, hidden, bias=False, **like)
        self.up = nn.Linear(hidden, width, **like)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(self.norm(x)).relu())  # type: ignore[no-any-return]


class KroneckerProjections(nn.Module):
    """The same without LayerNorm, of sums of m Kronecker products. (..., d) -> (..., d)

        W_down = sum_i A^i (x) B_down^i,    W_up = sum_i A^i (x) B_up^i    (eq. 6)

    The matrices are built in every forward, which costs m d k products against the rows' d k each. Where m does not
    divide d, the blocks are rounded up and the matrix is cut to d, as if x had zeros appended; k is rounded up to a
    multiple of m. The paper's widths need neither.

    Args:
        width: d.
        hidden: k.
        factors: m, the number of Kronecker products and the size of the square A^i.
        like: type and device of the parameters.
    """

    def __init__(self, width: int, hidden: int, factors: int, like: Like) -> None:
        super().__init__()
        m, d, k = factors, math.ceil(width / factors), math.ceil(hidden / factors)
        self.width = width
        self.a = nn.Parameter(torch.empty(m, m, m, **like).normal_(std=m**-0.5))  # W_down has the spread of B_down
        self.b_down = nn.Parameter(torch.empty(m, d, k, **like).uniform_(-(width**-0.5), width**-0.5))  # as nn.Linear
        self.b_up = nn.Parameter(torch.zeros(m, k, d, **like))
        self.bias = nn.Parameter(torch.zeros(width, **like))

    def forward(self, x: Tensor) -> Tensor:
        down, up = sum_of_kroneckers(self.a, self.b_down), sum_of_kroneckers(self.a, self.b_up)
        hidden = (x @ down[: self.width]).relu()  # (..., k)
        return hidden @ up[:, : self.width] + self.bias


def sum_of_kroneckers(a: Tensor, b: Tensor) -> Tensor:
    """sum_i A^i (x) B^i in one product: a (m, p, q), b (m, r, s) -> (p * r, q * s)"""
    blocks = torch.einsum("ipq,irs->prqs", a, b)  # (p, r, q, s)
    return blocks.flatten(2).flatten(0, 1)
