"""TS-LoRA of MTLoRA (Agiza et al., CVPR 2024, section 3.2). TA-LoRA, eq. 1, is `SharedLoRA` of mt_core.low_rank."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mt_core.adapter import StreamModule
from mt_core.low_rank import add_low_rank, add_low_rank_per_stream, pair
from mt_core.streams import Streams


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
        self.a, self.b = pair(base, rank)
        pairs = {task: pair(base, task_rank) for task in self.full_after.sides.tasks}
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
        x = x.unsqueeze(0) if self.forks else x  # (1 or T, B, ..., k)
        y = add_low_rank_per_stream(frozen.flatten(0, -2).unsqueeze(0), x.flatten(1, -2), down, up, self.scale)
        return y.unflatten(1, frozen.shape[:-1])  # type: ignore[no-any-return]  # (T, B, ..., d)
