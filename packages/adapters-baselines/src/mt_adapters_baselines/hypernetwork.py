"""Bottlenecks whose weights a network makes, one network for all tasks and layers (HyperFormer, Polyhistor)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from math import gcd

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mt_core.streams import Streams

from .per_task import PerTask

HeadMaker = Callable[[Tensor, int, int, int, bool], nn.Module]  # (like, embedding, inputs, outputs, zero)


class DenseHead(nn.Module):
    """A matrix for each embedding, every entry a linear function of its own (HyperFormer). (T, e) -> (T, i, o)

    Args:
        like: whose type and place the parameters have.
        embedding: e.
        inputs, outputs: i and o.
        zero: start with matrices of zeros.
    """

    def __init__(self, like: Tensor, embedding: int, inputs: int, outputs: int, zero: bool) -> None:
        super().__init__()
        self.weight = _tensor(like, (2 / (inputs + outputs)) ** 0.5, zero, inputs, outputs, embedding)

    def forward(self, embeddings: Tensor) -> Tensor:
        return _matrices(embeddings, self.weight)


class DecomposedHead(nn.Module):
    """The same as a product of two matrices of rank r, each made so: e r (i + o) parameters in place of e i o."""

    def __init__(self, like: Tensor, embedding: int, inputs: int, outputs: int, zero: bool, rank: int) -> None:
        super().__init__()
        self.first = _tensor(like, inputs**-0.5, False, inputs, rank, embedding)
        self.last = _tensor(like, rank**-0.5, zero, rank, outputs, embedding)

    def forward(self, embeddings: Tensor) -> Tensor:
        return _matrices(embeddings, self.first) @ _matrices(embeddings, self.last)


class HyperNetwork(nn.Module, ABC):
    """From a task and a layer to the two projections of the bottleneck that stands there.

        I = W_2 relu(W_1 [z_t, l_s] + b_1) + b_2        D, U = heads(I)

    with an embedding z_t for each task and l_s for each layer.

    Args:
        like: whose type and place the parameters have.
        tasks: names of the tasks.
        shapes: (C, C / reduction) of every layer's bottleneck.
        embedding: e, the size of z, l and I.
        hidden: the size of the layer between.
        head: makes the heads.
    """

    def __init__(
        self,
        like: Tensor,
        tasks: Sequence[str],
        shapes: Sequence[tuple[int, int]],
        embedding: int,
        hidden: int,
        head: HeadMaker,
    ) -> None:
        super().__init__()
        self.shapes = list(shapes)
        self.task = nn.ParameterDict({task: nn.Parameter(like.new_empty(embedding).normal_()) for task in tasks})
        self.layer = nn.Parameter(like.new_empty(len(shapes), embedding).normal_())
        with torch.device(like.device):
            self.mix = nn.Sequential(
                nn.Linear(2 * embedding, hidden, dtype=like.dtype),
                nn.ReLU(),
                nn.Linear(hidden, embedding, dtype=like.dtype),
            )
        self.make_heads(like, embedding, head)

    def forward(self, tasks: Sequence[str], layer: int) -> tuple[Tensor, Tensor]:
        """D (T, C, C / reduction) and U (T, C / reduction, C) of one layer for each of the tasks."""
        z = torch.stack([self.task[task] for task in tasks])  # (T, e)
        embeddings: Tensor = self.mix(torch.cat([z, self.layer[layer].expand_as(z)], dim=-1))  # (T, e)
        return self.projections(embeddings, layer)

    @abstractmethod
    def make_heads(self, like: Tensor, embedding: int, head: HeadMaker) -> None:
        """Make what `projections` needs. Those for U start with zeros."""

    @abstractmethod
    def projections(self, embeddings: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """D and U of one layer from the embeddings I: (T, e) -> (T, C, C / reduction), (T, C / reduction, C)"""


class HeadPerWidth(HyperNetwork):
    """Two heads for each width of the encoder, shared by all layers of that width."""

    def make_heads(self, like: Tensor, embedding: int, head: HeadMaker) -> None:
        widths = dict.fromkeys(self.shapes)
        self.down = nn.ModuleDict({str(c): head(like, embedding, c, inner, False) for c, inner in widths})
        self.up = nn.ModuleDict({str(c): head(like, embedding, inner, c, True) for c, inner in widths})

    def projections(self, embeddings: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        width = str(self.shapes[layer][0])
        return self.down[width](embeddings), self.up[width](embeddings)


class ScaledTemplates(HyperNetwork):
    """Two heads for all layers, which make templates: matrices of the greatest size that divides all layers'. Two
    kernels for each layer, trained as they are, scale them up: W = kernel (x) template (Kronecker product)."""

    def make_heads(self, like: Tensor, embedding: int, head: HeadMaker) -> None:
        width, inner = (gcd(*sizes) for sizes in zip(*self.shapes, strict=True))
        self.down = head(like, embedding, width, inner, False)
        self.up = head(like, embedding, inner, width, True)
        sizes = [(c // width, n // inner) for c, n in self.shapes]
        self.scale_down = nn.ParameterList(nn.Parameter(_kernel(like, a, b)) for a, b in sizes)
        self.scale_up = nn.ParameterList(nn.Parameter(_kernel(like, b, a)) for a, b in sizes)

    def projections(self, embeddings: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        down, up = self.down(embeddings), self.up(embeddings)
        return _kronecker(self.scale_down[layer], down), _kronecker(self.scale_up[layer], up)


class GeneratedBottleneck(PerTask):
    """y_t + relu(y_t D_t) U_t, where y is the layer's output. (S * B, ..., C) -> (T * B, ..., C)

    Attributes:
        network: makes D and U; set once all layers are known, one for all of them.
        layer: the number of this layer among them.
    """

    unmergeable = "an activation stands between its projections"
    network: HyperNetwork
    layer: int

    def __init__(self, base: nn.Module, streams: Streams, shape: tuple[int, int]) -> None:
        super().__init__(base, streams)
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)  # (S * B, ..., C)
        down, up = self.network(self.tasks, self.layer)
        rows = self.per_stream(y)  # (S, M, C)
        sum_: Tensor = rows + F.relu(rows @ down) @ up  # (T, M, C)
        return sum_.view(-1, *y.shape[1:])


def _tensor(like: Tensor, std: float, zero: bool, inputs: int, outputs: int, embedding: int) -> nn.Parameter:
    """(i, o, e), such that embeddings of unit variance make matrices whose entries have the deviation `std`."""
    new = like.new_empty(inputs, outputs, embedding)
    return nn.Parameter(new.zero_() if zero else new.normal_(std=std * embedding**-0.5))


def _matrices(embeddings: Tensor, weight: Tensor) -> Tensor:
    """(T, e), (i, o, e) -> (T, i, o)"""
    return F.linear(embeddings, weight.flatten(0, 1)).view(-1, *weight.shape[:2])


def _kernel(like: Tensor, rows: int, columns: int) -> Tensor:
    """Entries of the deviation that keeps that of a template's rows: (a, b)"""
    return like.new_empty(rows, columns).normal_(std=rows**-0.5)


def _kronecker(kernel: Tensor, templates: Tensor) -> Tensor:
    """kernel (x) template for each template: (a, b), (T, i, o) -> (T, a i, b o)"""
    return torch.einsum("ab,tio->taibo", kernel, templates).flatten(3, 4).flatten(1, 2)
