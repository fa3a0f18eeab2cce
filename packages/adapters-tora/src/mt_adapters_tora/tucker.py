"""The module of ToRA: the updates of one layer for all tasks are slices of one Tucker tensor (TA-LoRA, eq. 2 to 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mt_core.adapter import StreamModule
from mt_core.streams import Streams


def squared(gram: Tensor) -> Tensor:
    """Sum of the squared Frobenius norms of gram - I, as eq. 5 is printed. (..., r, r) -> (...)"""
    return _off_identity(gram).square().sum((-2, -1))


def norm(gram: Tensor) -> Tensor:
    """The Frobenius norm of gram - I, not squared, as the authors' runs use it. (..., r, r) -> (...)"""
    distance: Tensor = torch.linalg.matrix_norm(_off_identity(gram))
    return distance


def _off_identity(gram: Tensor) -> Tensor:
    return gram - torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)


class TuckerLinear(StreamModule):
    """y_t = W x_t + b + s U1 G_t U2' x_t, where G_t = sum_l U3[t, l] G[:, :, l]   (eq. 2 and 4)

    A stream per task, or one trunk that forks here; then the frozen product and x U2 are taken once, with one dropout
    mask. The factors are applied one after the other: only the middle one, q x p numbers, differs between tasks, and
    the update U1 G_t U2' (d x k) is never built. (S * B, ..., k) -> (T * B, ..., d)

    Args:
        base: the frozen layer, k in and d out.
        streams: those that arrive.
        ranks: p, q, v.
        scale: s.
        dropout: on the input of the update.
        init_scale: standard deviation of the factors at the start; the core starts at 0.
        terms: which of "u1", "u2", "core" are kept orthogonal.
        measure: how far a Gram matrix is from the identity, `norm` or `squared`.
    """

    base: nn.Linear

    def __init__(
        self,
        base: nn.Linear,
        streams: Streams,
        ranks: tuple[int, int, int],
        scale: float,
        dropout: float,
        init_scale: float,
        terms: Sequence[str],
        measure: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__(base, streams, streams.per_task())
        p, q, v = ranks
        new = base.weight.new_empty
        self.scale, self.terms, self.measure = scale, tuple(terms), measure
        self.dropout = nn.Dropout(dropout)
        self.u1 = nn.Parameter(new(base.out_features, p).normal_(std=init_scale))  # (d, p)
        self.u2 = nn.Parameter(new(base.in_features, q).normal_(std=init_scale))  # (k, q)
        self.u3 = nn.ParameterDict(
            {task: nn.Parameter(new(v).normal_(std=init_scale)) for task in streams.carried.tasks}
        )
        self.core = nn.Parameter(base.weight.new_zeros(p, q, v))

    def bind(self, before: Streams, after: Streams) -> None:
        super().bind(before, after)
        self.tasks = [str(stream) for stream in after]

    def forward(self, x: Tensor) -> Tensor:
        frozen = self.fork(self.base(x))  # (T * B, ..., d)
        inner = self.fork(self.dropout(x) @ self.u2)  # (T * B, ..., q)
        inner = inner.unflatten(0, (len(self.tasks), -1)).flatten(1, -2)  # (T, M, q)
        mixed = (inner @ self._cores(self.tasks).mT).flatten(0, 1)  # (T * M, p)
        y = torch.addmm(frozen.flatten(0, -2).to(mixed.dtype), mixed, self.u1.T.to(mixed.dtype), alpha=self.scale)
        return y.view(frozen.shape)

    def delta(self, task: str) -> Tensor | None:
        return self.scale * (self.u1 @ self._cores([task])[0] @ self.u2.T)

    def penalty(self) -> Tensor | None:
        """The terms of eq. 5: U1, U2 and every slice of the core, each as `measure` says. (terms,)"""
        core = self.core.permute(2, 0, 1)  # (v, p, q)
        factors = {"u1": self.u1[None], "u2": self.u2[None], "core": core}
        found = [self.measure(factors[term].mT @ factors[term]) for term in self.terms]
        return torch.cat(found) if found else None

    def _cores(self, tasks: list[str]) -> Tensor:
        """G_t for each of the tasks: (T, p, q)"""
        u3 = torch.stack([self.u3[task] for task in tasks])  # (T, v)
        return torch.einsum("tv,pqv->tpq", u3, self.core)
