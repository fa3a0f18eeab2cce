"""The two modules of MTLoRA (Agiza et al., CVPR 2024, section 3.2): low-rank updates for all tasks and for one."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mt_core.adapter import SiteModule, StreamModule
from mt_core.streams import Streams


def _pair(base: nn.Linear, rank: int) -> tuple[nn.Parameter, nn.Parameter]:
    """A (r, k), Kaiming-uniform, and B (d, r), zero: the update B A starts as nothing."""
    a = base.weight.new_empty(rank, base.in_features)
    nn.init.kaiming_uniform_(a, a=math.sqrt(5))
    return nn.Parameter(a), nn.Parameter(base.weight.new_zeros(base.out_features, rank))


def add_low_rank(y: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """y + s B A x, without another tensor of y's size. y (..., d), x (..., k) -> (..., d)"""
    inner = (x @ a.T).flatten(0, -2)  # (M, r)
    sum_ = torch.addmm(y.flatten(0, -2).to(inner.dtype), inner, b.T.to(inner.dtype), alpha=scale)  # (M, d)
    return sum_.view(y.shape)


class SharedLoRA(SiteModule):
    """TA-LoRA, eq. 1: y = W x + b + s B A x, the same for every stream. (..., k) -> (..., d)"""

    base: nn.Linear

    def __init__(self, base: nn.Linear, rank: int, scale: float, dropout: float) -> None:
        super().__init__(base)
        self.scale, self.dropout = scale, nn.Dropout(dropout)
        self.a, self.b = _pair(base, rank)

    def forward(self, x: Tensor) -> Tensor:
        return add_low_rank(self.base(x), self.dropout(x), self.a, self.b, self.scale)

    def delta(self, task: str) -> Tensor | None:
        return self.scale * (self.b @ self.a)


class TaskLoRA(StreamModule):
    """TS-LoRA, eq. 2: beside the shared stream (TA-LoRA), a side stream per task with a pair of its own.

        y_shared = W x_shared + b + s B A x_shared
        y_t      = W x_shared + b + s B_t A_t x_t

    The frozen product is taken once, on the shared input, and serves every task; the shared pair does not enter the
    tasks' outputs. At the first such site of a block the tasks have no input of their own yet: x_t = x_shared, with
    one dropout mask for all. (S * B, ..., k) -> (S' * B, ..., d)
    """

    base: nn.Linear
    unmergeable = "its frozen product is taken on the shared input, its low-rank term on the task's (eq. 2)"

    def __init__(
        self, base: nn.Linear, streams: Streams, rank: int, task_rank: int, scale: float, dropout: float
    ) -> None:
        super().__init__(base, streams, streams.with_sides())
        self.scale, self.dropout = scale, nn.Dropout(dropout)
        self.a, self.b = _pair(base, rank)
        pairs = {task: _pair(base, task_rank) for task in self.full_after.sides.tasks}
        self.task_a = nn.ParameterDict({task: a for task, (a, _) in pairs.items()})
        self.task_b = nn.ParameterDict({task: b for task, (_, b) in pairs.items()})

    def needs(self, after: Streams) -> Streams:
        return self.full_before.only({*self.full_before.carried, *super().needs(after)})

    def bind(self, before: Streams, after: Streams) -> None:
        super().bind(before, after)
        self.tasks = [str(task) for task in after.sides.tasks]
        self.forks = not before.sides  # the tasks still share their input
        self.carries = bool(after.carried)  # somebody still reads the shared stream

    def forward(self, x: Tensor) -> Tensor:
        streams = x.unflatten(0, (len(self.before), -1))  # (S, B, ..., k)
        shared = streams[0]  # (B, ..., k)
        frozen = self.base(shared)  # (B, ..., d)
        dropped = self.dropout(streams)
        outputs = []
        if self.carries:
            outputs.append(add_low_rank(frozen, dropped[0], self.a, self.b, self.scale).unsqueeze(0))
        if self.tasks:
            outputs.append(self._tasks(frozen, dropped[0] if self.forks else dropped[1:]))
        return torch.cat(outputs).flatten(0, 1)  # (S' * B, ..., d)

    def _tasks(self, frozen: Tensor, x: Tensor) -> Tensor:
        """All tasks in two batched products: frozen (B, ..., d), x (B, ..., k) or (T, B, ..., k) -> (T, B, ..., d)"""
        down = torch.stack([self.task_a[task] for task in self.tasks])  # (T, r, k)
        up = torch.stack([self.task_b[task] for task in self.tasks])  # (T, d, r)
        if self.forks:
            inner = x.flatten(0, -2) @ down.flatten(0, 1).T  # (M, T * r), one product for all tasks
            inner = inner.unflatten(-1, (len(self.tasks), -1)).transpose(0, 1)  # (T, M, r)
        else:
            inner = x.flatten(1, -2) @ down.mT  # (T, M, r)
        base = frozen.flatten(0, -2).expand(len(self.tasks), -1, -1)  # (T, M, d)
        y = torch.baddbmm(base.to(inner.dtype), inner, up.mT.to(inner.dtype), alpha=self.scale)  # (T, M, d)
        unflattened: Tensor = y.unflatten(1, frozen.shape[:-1])  # (T, B, ..., d)
        return unflattened
