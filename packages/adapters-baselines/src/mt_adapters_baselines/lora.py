"""LoRA (Hu et al., ICLR 2022), shared by all tasks (LoRA-HPS) or one for each (LoRA-STL), as TA-LoRA compares to it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mt_core.adapter import Adapter, SiteModule
from mt_core.backbone import Encoder
from mt_core.errors import ConfigError
from mt_core.low_rank import SharedLoRA, add_low_rank, add_low_rank_per_stream, pair
from mt_core.site import LINEAR, Role, Site
from mt_core.streams import Streams

from .per_task import PerTask, layer_norm
from .sites import check_sites, refuse_none

_NORMED = "a LayerNorm stands before its low-rank term (pre_norm)"


class NormedLoRA(SharedLoRA):
    """y = W x + b + s B A LN(x), with a LayerNorm of its own; no change of weight. Arguments as of `SharedLoRA`."""

    unmergeable = _NORMED

    def __init__(self, base: nn.Linear, rank: int, scale: float, dropout: float) -> None:
        super().__init__(base, rank, scale, dropout)
        self.norm = _layer_norm(base)

    def forward(self, x: Tensor) -> Tensor:
        return add_low_rank(self.base(x), self.dropout(self.norm(x)), self.a, self.b, self.scale)

    def delta(self, task: str) -> Tensor | None:
        return None


class TaskLoRA(PerTask):
    """y_t = W x_t + b + s B_t A_t x_t; where the tasks share their input, W x is taken once, with one dropout mask.

    (S * B, ..., k) -> (T * B, ..., d). Arguments as of `SharedLoRA`, and `pre_norm` for a LayerNorm before each A_t.
    """

    base: nn.Linear

    def __init__(
        self, base: nn.Linear, streams: Streams, rank: int, scale: float, dropout: float, pre_norm: bool = False
    ) -> None:
        super().__init__(base, streams)
        self.scale, self.dropout = scale, nn.Dropout(dropout)
        tasks = self.full_after.tasks
        pairs = {task: pair(base, rank) for task in tasks}
        self.a = nn.ParameterDict({task: a for task, (a, _) in pairs.items()})
        self.b = nn.ParameterDict({task: b for task, (_, b) in pairs.items()})
        norms = {task: _layer_norm(base) for task in tasks} if pre_norm else {}
        self.norm_weight = nn.ParameterDict({task: norm.weight for task, norm in norms.items()})
        self.norm_bias = nn.ParameterDict({task: norm.bias for task, norm in norms.items()})
        self.unmergeable = _NORMED if pre_norm else ""  # type: ignore[misc]

    def forward(self, x: Tensor) -> Tensor:
        y, inner = self.base(x), self.per_stream(x)  # (S * B, ..., d), (S, M, k)
        if self.norm_weight:
            inner = layer_norm(inner, self.stack(self.norm_weight), self.stack(self.norm_bias))  # (T, M, k)
        a, b = self.stack(self.a), self.stack(self.b)
        sum_ = add_low_rank_per_stream(self.per_stream(y), self.dropout(inner), a, b, self.scale)  # (T, M, d)
        return sum_.view(-1, *y.shape[1:])

    def delta(self, task: str) -> Tensor | None:
        return None if self.unmergeable else self.scale * (self.b[task] @ self.a[task])


@dataclass
class LoRA(Adapter):
    """One low-rank update per layer, which all tasks share (LoRA-HPS in the TA-LoRA paper).

    Scale, dropout and trained norms are those of the authors' runs of ToRA, which LoRA is compared with there.

    Attributes:
        rank: of each update, r.
        scale: plain factor s of each update (alpha / r in other implementations).
        dropout: on the input of each update.
        sites: which linear layers get one: qkv (q and kv where a backbone has them apart), proj, fc1, fc2, merge.
        train_norms: train the scale and bias of the LayerNorms, shared by all tasks, as ToRA does.
        pre_norm: put a LayerNorm before each update, trained with it. The counts of the VMT-Adapter paper (r = 4) are
            those with it and without `train_norms`. It is no change of weight then.
    """

    rank: int = 32
    scale: float = 0.5
    dropout: float = 0.1
    sites: list[str] = field(default_factory=lambda: ["qkv"])
    train_norms: bool = True
    pre_norm: bool = False

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"rank={self.rank}: expected a rank of at least 1")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout={self.dropout}: expected a probability below 1")
        check_sites(self.sites, LINEAR)

    def adapt(self, site: Site, module: nn.Module, streams: Streams) -> nn.Module | None:
        if site.role is Role.norm and self.train_norms:
            return module
        if not isinstance(module, nn.Linear) or not site.among(self.sites):
            return None
        return self.update(module, streams)

    def attached(self, encoder: Encoder) -> None:
        refuse_none(encoder, self.sites)

    def update(self, layer: nn.Linear, streams: Streams) -> SiteModule:
        """What stands in the place of a layer."""
        kind = NormedLoRA if self.pre_norm else SharedLoRA
        return kind(layer, self.rank, self.scale, self.dropout)


@dataclass
class LoRAPerTask(LoRA):
    """A low-rank update per layer and task (LoRA-STL in the TA-LoRA paper): every task is a stream of its own."""

    rank: int = 16

    def update(self, layer: nn.Linear, streams: Streams) -> SiteModule:
        return TaskLoRA(layer, streams, self.rank, self.scale, self.dropout, self.pre_norm)


def _layer_norm(layer: nn.Linear) -> nn.LayerNorm:
    """For the input of a layer, in its type and place."""
    with torch.device(layer.weight.device):
        return nn.LayerNorm(layer.in_features, dtype=layer.weight.dtype)
