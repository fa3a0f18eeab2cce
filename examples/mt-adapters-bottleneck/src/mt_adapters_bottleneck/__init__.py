"""A bottleneck for each task beside every MLP (Houlsby et al., ICML 2019; parallel as in AdaptFormer, NeurIPS 2022)."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mt_core import Adapter, ConfigError, Role, Site, StreamModule, Streams, hookimpl


class Bottlenecks(StreamModule):
    """y_t = MLP(x_t) + U_t relu(D_t x_t) for each task t; the first one forks. (S * B, ..., C) -> (T * B, ..., C)"""

    unmergeable = "a ReLU stands between its two matrices"

    def __init__(self, mlp: nn.Module, streams: Streams, width: int) -> None:
        super().__init__(mlp, streams, streams.per_task())
        first, tasks = next(mlp.parameters()), self.full_after.tasks
        channels = first.shape[-1]
        self.down = nn.ParameterDict({t: nn.init.xavier_uniform_(first.new_empty(channels, width)) for t in tasks})
        self.up = nn.ParameterDict({t: first.new_zeros(width, channels) for t in tasks})

    def forward(self, x: Tensor) -> Tensor:
        y, tasks = self.fork(self.base(x)), self.after.tasks  # (T * B, ..., C), the frozen MLP once per arriving stream
        x = self.fork(x).unflatten(0, (len(tasks), -1)).flatten(1, -2)  # (T, M, C)
        down, up = (torch.stack([matrix[t] for t in tasks]) for matrix in (self.down, self.up))
        return y + ((x @ down).relu() @ up).reshape(y.shape)


@dataclass
class Bottleneck(Adapter):
    """A bottleneck for each task beside every MLP.

    Attributes:
        width: of each bottleneck, r.
    """

    width: int = 16

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ConfigError(f"adapter.width={self.width}: expected at least 1")

    def adapt(self, site: Site, module: nn.Module, streams: Streams) -> nn.Module | None:
        return Bottlenecks(module, streams, self.width) if site.role is Role.mlp else None


@hookimpl
def mt_adapters() -> Mapping[str, type | str]:
    return {"bottleneck": Bottleneck}
