"""Bottleneck adapters (Houlsby et al., ICML 2019) and how their projections are parametrised."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mt_core.adapter import SiteModule
from mt_core.streams import Streams

from .per_task import PerTask, layer_norm

Activation = Callable[[Tensor], Tensor]


class Projection(nn.Module, ABC):
    """x W + b, where W (i, o) may be made of smaller parts.

    Attributes:
        bias: (o), or None.
    """

    bias: nn.Parameter | None

    @abstractmethod
    def factors(self) -> tuple[Tensor, ...]:
        """Matrices to multiply with, one after the other; the parameters of the last one are called `last`."""

    def start_as_zero(self) -> None:
        """Make W zero, by its last factor."""
        nn.init.zeros_(self.last)  # type: ignore[arg-type]


class Dense(Projection):
    """W itself, a matrix."""

    def __init__(self, like: Tensor, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.last = nn.Parameter(nn.init.xavier_uniform_(like.new_empty(inputs, outputs)))
        self.bias = nn.Parameter(like.new_zeros(outputs)) if bias else None

    def factors(self) -> tuple[Tensor, ...]:
        return (self.last,)


class LowRank(Projection):
    """W = U V with U (i, r) and V (r, o)."""

    def __init__(self, like: Tensor, inputs: int, outputs: int, bias: bool, rank: int) -> None:
        super().__init__()
        self.first = nn.Parameter(nn.init.xavier_uniform_(like.new_empty(inputs, rank)))
        self.last = nn.Parameter(nn.init.xavier_uniform_(like.new_empty(rank, outputs)))
        self.bias = nn.Parameter(like.new_zeros(outputs)) if bias else None

    def factors(self) -> tuple[Tensor, ...]:
        return self.first, self.last


class Kronecker(Projection):
    """W = sum_i A_i (x) (s_i t_i), i = 1 ... n, with A_i (n, n), s_i (i / n, r), t_i (r, o / n) (Compacter, eq. 5).

    The A_i may belong to several of these: see `rule`.
    """

    def __init__(self, like: Tensor, inputs: int, outputs: int, bias: bool, rank: int, parts: int) -> None:
        super().__init__()
        self.rule = nn.Parameter(like.new_empty(parts, parts, parts).normal_(std=parts**-0.5))
        self.first = nn.Parameter(like.new_empty(parts, inputs // parts, rank))
        self.last = nn.Parameter(like.new_empty(parts, rank, outputs // parts))
        for matrix in (*self.first.data, *self.last.data):
            nn.init.xavier_uniform_(matrix)
        self.bias = nn.Parameter(like.new_zeros(outputs)) if bias else None

    def factors(self) -> tuple[Tensor, ...]:
        blocks = torch.einsum("nab,nir,nro->aibo", self.rule, self.first, self.last)  # (n, i / n, n, o / n)
        return (blocks.flatten(2).flatten(0, 1),)


class Bottleneck(nn.Module):
    """What is added to a layer's output y: act(LN(y) W_down + b_down) W_up + b_up. It starts as zero.

    Args:
        down, up: the two projections.
        width: of y, for the LayerNorm; 0 for none.
    """

    def __init__(self, down: Projection, up: Projection, width: int) -> None:
        super().__init__()
        like = next(down.parameters())
        self.norm = nn.LayerNorm(width, device=like.device, dtype=like.dtype) if width else None
        self.down, self.up = down, up
        up.start_as_zero()


def add_bottlenecks(y: Tensor, bottlenecks: Sequence[Bottleneck], activation: Activation) -> Tensor:
    """y_s + act(LN_s(y_s) D_s) U_s for every stream s, in batched products. y (S or 1, M, C) -> (S, M, C)"""
    x, norms = y, [bottleneck.norm for bottleneck in bottlenecks if bottleneck.norm is not None]
    if norms:
        x = layer_norm(x, *(torch.stack([getattr(norm, name) for norm in norms]) for name in ("weight", "bias")))
    x = activation(_project(x, [bottleneck.down for bottleneck in bottlenecks]))  # (S, M, C / reduction)
    return y + _project(x, [bottleneck.up for bottleneck in bottlenecks])


def _project(x: Tensor, projections: Sequence[Projection]) -> Tensor:
    """x_s W_s + b_s: (S or 1, M, i) -> (S, M, o)"""
    for factors in zip(*(projection.factors() for projection in projections), strict=True):
        x = x @ torch.stack(factors)  # the same factor of all streams
    biases: list[Tensor] = [projection.bias for projection in projections if projection.bias is not None]
    return x + torch.stack(biases).unsqueeze(1) if biases else x


class SharedBottleneck(SiteModule):
    """A layer and a bottleneck behind it, the same for every stream. (..., C) -> (..., C)"""

    unmergeable = "an activation stands between its projections"

    def __init__(self, base: nn.Module, make: Callable[[], Bottleneck], activation: Activation) -> None:
        super().__init__(base)
        self.activation, self.bottleneck = activation, make()

    @property
    def bottlenecks(self) -> dict[str, Bottleneck]:
        """The one, for no task in particular."""
        return {"": self.bottleneck}

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)  # (..., C)
        return add_bottlenecks(y.flatten(0, -2).unsqueeze(0), [self.bottleneck], self.activation).view(y.shape)


class TaskBottleneck(PerTask):
    """A layer and a bottleneck for each task behind it. (S * B, ..., C) -> (T * B, ..., C)"""

    unmergeable = "an activation stands between its projections"

    def __init__(
        self, base: nn.Module, streams: Streams, make: Callable[[], Bottleneck], activation: Activation
    ) -> None:
        super().__init__(base, streams)
        self.activation = activation
        self.of = nn.ModuleDict({task: make() for task in self.full_after.tasks})

    @property
    def bottlenecks(self) -> dict[str, Bottleneck]:
        """That of each task."""
        return dict(self.of.items())  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)  # (S * B, ..., C)
        flowing = [self.of[task] for task in self.tasks]
        return add_bottlenecks(self.per_stream(y), flowing, self.activation).view(-1, *y.shape[1:])  # type: ignore[arg-type]
