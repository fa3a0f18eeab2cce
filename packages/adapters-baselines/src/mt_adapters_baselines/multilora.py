"""MultiLoRA (Wang et al., arXiv 2311.11501): several low-rank updates side by side, shared by all tasks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mt_core.adapter import SiteModule
from mt_core.errors import ConfigError
from mt_core.low_rank import add_low_rank
from mt_core.streams import Streams

from .lora import LoRA


class ParallelLoRA(SiteModule):
    """y = W x + b + s sum_i B_i A_i (z_i * x), where z_i scales the input's channels. (..., k) -> (..., d)

    All updates are one product of rank n r. A and B start at random, and z at zero, so that the sum starts as nothing
    but no update starts like another (section 3.2).
    """

    base: nn.Linear

    def __init__(self, base: nn.Linear, parallel: int, rank: int, scale: float, dropout: float) -> None:
        super().__init__(base)
        new = base.weight.new_empty
        self.scale, self.dropout = scale, nn.Dropout(dropout)
        self.a = nn.Parameter(new(parallel, rank, base.in_features))
        self.b = nn.Parameter(new(parallel, base.out_features, rank))
        for matrix in (*self.a.data, *self.b.data):
            nn.init.kaiming_uniform_(matrix, a=math.sqrt(5))
        self.z = nn.Parameter(torch.zeros_like(self.a[:, 0]))  # (n, k)

    def forward(self, x: Tensor) -> Tensor:
        return add_low_rank(self.base(x), self.dropout(x), *self.factors(), self.scale)

    def factors(self) -> tuple[Tensor, Tensor]:
        """A (n r, k) and B (d, n r) of the sum."""
        return (self.a * self.z.unsqueeze(1)).flatten(0, 1), self.b.transpose(0, 1).flatten(1)

    def delta(self, task: str) -> Tensor | None:
        a, b = self.factors()
        return self.scale * (b @ a)


@dataclass
class MultiLoRA(LoRA):
    """n parallel low-rank updates per layer with a scaling vector each, which all tasks share.

    Attributes:
        parallel: how many, n: 3 on NYUv2, 5 on Cityscapes and PASCAL in the TA-LoRA paper.
        rank: of each of them.
    """

    rank: int = 16
    parallel: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.parallel < 1:
            raise ConfigError(f"parallel={self.parallel}: expected at least one update per layer")
        if self.pre_norm:
            raise ConfigError("pre_norm=true is not for multilora, whose updates scale their input themselves")

    def update(self, layer: nn.Linear, streams: Streams) -> SiteModule:
        return ParallelLoRA(layer, self.parallel, self.rank, self.scale, self.dropout)
