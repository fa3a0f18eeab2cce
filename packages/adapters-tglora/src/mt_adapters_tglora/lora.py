"""The module of TGLoRA (Gangwar et al., section 3.2): a low-rank pair for each group; `SharedLoRA` is that of one."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mt_core.adapter import StreamModule
from mt_core.low_rank import add_low_rank_per_stream, pair
from mt_core.streams import Streams


class GroupedLoRA(StreamModule):
    """Eq. 4: every group of tasks has a stream, and a pair, of its own.

        y_g = W x_g + b + s B_g A_g x_g

    Each group goes through the frozen layer with its own input, at the site where the streams fork too: that is what
    the paper counts. Ranks differ between groups; rows and columns of zeros bring the pairs to one size, and give
    nothing and get nothing. (S * B, ..., k) -> (S' * B, ..., d)

    Args:
        base: the frozen layer.
        before, after: the streams that arrive, and those that leave: one for each group.
        ranks: of the groups, in the order of `after`.
        scale: the factor s.
        dropout: on the input of the low-rank terms.
    """

    base: nn.Linear

    def __init__(
        self, base: nn.Linear, before: Streams, after: Streams, ranks: Sequence[int], scale: float, dropout: float
    ) -> None:
        super().__init__(base, before, after)
        self.scale, self.dropout = scale, nn.Dropout(dropout)
        pairs = {str(group): pair(base, rank) for group, rank in zip(after, ranks, strict=True)}
        self.group_a = nn.ParameterDict({group: a for group, (a, _) in pairs.items()})
        self.group_b = nn.ParameterDict({group: b for group, (_, b) in pairs.items()})

    def bind(self, before: Streams, after: Streams) -> None:
        super().bind(before, after)
        self.groups = [str(group) for group in after]

    def forward(self, x: Tensor) -> Tensor:
        x = self.fork(x)  # (S' * B, ..., k)
        frozen = self.base(x)  # (S' * B, ..., d)
        down = pad_sequence([self.group_a[group] for group in self.groups], batch_first=True)  # (S', r, k)
        up = pad_sequence([self.group_b[group].T for group in self.groups], batch_first=True).mT  # (S', d, r)
        y = add_low_rank_per_stream(self._rows(frozen), self._rows(self.dropout(x)), down, up, self.scale)
        return y.view(frozen.shape)

    def delta(self, task: str) -> Tensor | None:
        group = str(self.full_after[self.full_after.serving(task)])
        update: Tensor = self.group_b[group] @ self.group_a[group]
        return self.scale * update

    def _rows(self, x: Tensor) -> Tensor:
        """(S' * B, ..., k) -> (S', M, k)"""
        streams: Tensor = x.unflatten(0, (len(self.groups), -1))
        return streams.flatten(1, -2)
