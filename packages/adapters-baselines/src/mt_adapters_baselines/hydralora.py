"""HydraLoRA (Tian et al., NeurIPS 2024) with routing fixed by task: one A for all tasks, one B for each."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mt_core.adapter import Adapter
from mt_core.backbone import Encoder
from mt_core.errors import ConfigError
from mt_core.site import LINEAR, Role, Site
from mt_core.streams import Streams

from .per_task import PerTask
from .sites import check_sites, refuse_none


class HydraLinear(PerTask):
    """y_t = W x_t + b + s B_t A x_t, with A Kaiming-uniform and every B_t zero at the start.

    The frozen product and A x are taken once for all streams that share their input. (S * B, ..., k) -> (T * B, ..., d)
    """

    base: nn.Linear

    def __init__(self, base: nn.Linear, streams: Streams, rank: int, scale: float, dropout: float) -> None:
        super().__init__(base, streams)
        new = base.weight.new_empty
        self.scale, self.dropout = scale, nn.Dropout(dropout)
        self.a = nn.Parameter(new(rank, base.in_features))  # (r, k)
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))
        self.b = nn.ParameterDict(
            {task: nn.Parameter(new(base.out_features, rank).zero_()) for task in streams.carried.tasks}  # (d, r)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.fork(self.base(x))  # (T * B, ..., d)
        inner = self.fork(self.dropout(x) @ self.a.T)  # (T * B, ..., r)
        inner = inner.unflatten(0, (len(self.tasks), -1)).flatten(1, -2)  # (T, M, r)
        rows = y.view(*inner.shape[:2], -1).to(inner.dtype)  # (T, M, d)
        heads = self.stack(self.b).to(inner.dtype)  # (T, d, r)
        return torch.baddbmm(rows, inner, heads.mT, alpha=self.scale).view(y.shape)

    def delta(self, task: str) -> Tensor | None:
        update: Tensor = self.b[task] @ self.a
        return self.scale * update


@dataclass
class HydraLoRA(Adapter):
    """LoRA with one A for all tasks and a B of its own for each; every task is a stream from the first such layer on.

    The paper mixes its Bs by a router that looks at the tokens, because its tasks are unknown. Here the task is known,
    and the weights of the mixture are fixed: 1 for the task's own B. Scale, dropout and trained norms are those of the
    authors' runs of ToRA, which HydraLoRA is compared with there.

    Attributes:
        rank: of A and of every B, r.
        scale: factor on the update, not divided by the rank.
        dropout: on the update's input.
        sites: which layers: qkv (q and kv where a backbone has them apart), proj, fc1, fc2, merge.
        train_norms: train the scale and bias of the LayerNorms, shared by all tasks.
    """

    rank: int = 16
    scale: float = 0.5
    dropout: float = 0.1
    sites: list[str] = field(default_factory=lambda: ["qkv"])
    train_norms: bool = True

    def __post_init__(self) -> None:
        if self.rank < 1 or not 0 <= self.dropout < 1:
            raise ConfigError(f"rank={self.rank} dropout={self.dropout}: expected a rank from 1, a dropout in [0, 1)")
        check_sites(self.sites, LINEAR)

    def adapt(self, site: Site, module: nn.Module, streams: Streams) -> nn.Module | None:
        if site.role is Role.norm and self.train_norms:
            return module
        if not isinstance(module, nn.Linear) or not site.among(self.sites):
            return None
        return HydraLinear(module, streams, self.rank, self.scale, self.dropout)

    def attached(self, encoder: Encoder) -> None:
        refuse_none(encoder, self.sites)
