"""The module of VMT-Adapter: beside each MLP, one branch for all tasks, and a scale and a shift for each (eq. 3 to 5).

How the equations are read. F is the shared branch's output; x is what the MLP reads, its LayerNorm passed. The gating
ratio s parts F into (1 - s) F, task-generic, and s F, from which each task makes its own term in every block:

    trunk:      x <- x + MLP(x) + (1 - s) F            one stream, whatever the number of tasks
    task i:     f_i = alpha_i * (s F) + gamma_i        (eq. 4)

The terms of "each layer" are "directly transmitted to the decoder", and eq. 5 has one term per *stage* (the paper's
"block" with its several layers), so a task's features of stage j are

    f_g^j + f_i^j,      f_g^j = the trunk at the stage's end,      f_i^j = sum of f_i over the blocks of the stage,

and never enter attention, or the next stage. The sum is handed from block to block beside the trunk, and the tasks'
streams leave the trunk in the stage's last block. At the start F = 0, alpha = 1 and gamma = 0, which the paper leaves
open: every task starts as the frozen encoder, and would go on as a shared parallel adapter if its alpha never moved.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mt_core.adapter import StreamModule
from mt_core.streams import Streams


class StageSum:
    """What the blocks of one stage share: which tasks run, and the sum of their terms so far.

    A block takes what the block before it has left, and leaves its own; the last one leaves nothing. A block that is
    recomputed in the backward pass (activation checkpointing) finds nothing, or what another block has left, and
    starts anew. That is no loss: the sum is only ever added to, so its value enters no gradient inside a block.

    Attributes:
        blocks: how many blocks take part, counted while they are made.
        tasks: whose terms are wanted, settled when the streams are.
    """

    def __init__(self) -> None:
        self.blocks = 0
        self.tasks: list[str] = []
        self._left_by, self._left = -1, None  # type: tuple[int, Tensor | None]

    def take(self, block: int, shape: torch.Size) -> Tensor | None:
        """What the block before `block` has left: (T, B, ..., d); none if it was for another batch, (B, ..., d)."""
        left = self._left if self._left_by == block - 1 else None
        self._left_by, self._left = -1, None
        return left if left is not None and left.shape == (len(self.tasks), *shape) else None

    def leave(self, block: int, terms: Tensor) -> None:
        """Hand on the sum, (T, B, ..., d), this block's terms included."""
        self._left_by, self._left = block, terms

    def __getstate__(self) -> dict[str, Any]:
        """Copied and pickled without what is left of a forward pass."""
        return {**self.__dict__, "_left_by": -1, "_left": None}


class ParallelAdapter(StreamModule):
    """MLP(x) + (1 - s) F, and the tasks' terms alpha_i * (s F) + gamma_i added to the stage's sum. (B, ..., d) -> same

    Args:
        base: the frozen MLP.
        streams: those that arrive: the trunk alone.
        shared: x -> F.
        width: d.
        gating: s.
        stage: the sum that the blocks of the stage share; this block becomes its next.
        after: the streams that leave.
    """

    unmergeable = "it is a branch with a ReLU beside the MLP (eq. 3), and its terms per task go to the decoders (eq. 5)"

    def __init__(
        self,
        base: nn.Module,
        streams: Streams,
        shared: nn.Module,
        width: int,
        gating: float,
        stage: StageSum,
        after: Streams | None = None,
    ) -> None:
        self.stage, self.block = stage, stage.blocks
        stage.blocks += 1
        super().__init__(base, streams, after)
        like = next(base.parameters())
        self.shared, self.gating = shared, gating
        self.alpha = nn.ParameterDict({task: nn.Parameter(like.new_ones(width)) for task in streams.tasks})
        self.gamma = nn.ParameterDict({task: nn.Parameter(like.new_zeros(width)) for task in streams.tasks})

    def forward(self, x: Tensor) -> Tensor:
        trunk, terms = self._branches(x)
        self.stage.leave(self.block, terms)
        return trunk

    def _branches(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the trunk adds, (B, ..., d), and the sum of the tasks' terms up to this block, (T, B, ..., d)."""
        latent = self.shared(x)  # F: (B, ..., d)
        trunk = torch.add(self.base(x), latent, alpha=1 - self.gating)
        alpha, gamma = (
            torch.stack([factors[task] for task in self.stage.tasks]).view(-1, *[1] * (x.dim() - 1), x.shape[-1])
            for factors in (self.alpha, self.gamma)
        )  # (T, 1, ..., d)
        so_far = self.stage.take(self.block, latent.shape)
        latent = latent.to(alpha.dtype)
        if so_far is None:
            return trunk, torch.addcmul(gamma, latent, alpha, value=self.gating)
        return trunk, so_far.add_(gamma).addcmul_(latent, alpha, value=self.gating)  # nobody else reads the sum


class LastParallelAdapter(ParallelAdapter):
    """The same in the last block of a stage, where a side stream for each task leaves with the sum.

    (B, ..., d) -> ((1 + T) * B, ..., d), or (T * B, ..., d) where nobody reads the trunk any more
    """

    def __init__(
        self, base: nn.Module, streams: Streams, shared: nn.Module, width: int, gating: float, stage: StageSum
    ) -> None:
        super().__init__(base, streams, shared, width, gating, stage, streams.with_sides())

    def bind(self, before: Streams, after: Streams) -> None:
        super().bind(before, after)
        self.stage.tasks = [str(task) for task in after.sides.tasks]
        self.carries = bool(after.carried)

    def forward(self, x: Tensor) -> Tensor:
        trunk, terms = self._branches(x)
        sides = (trunk + terms).flatten(0, 1)  # (T * B, ..., d)
        return torch.cat([trunk.to(sides.dtype), sides]) if self.carries else sides
