"""What every module with parameters of its own for each task has in common."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mt_core.adapter import StreamModule
from mt_core.streams import Streams


class PerTask(StreamModule):
    """A frozen module with parameters for each task: a stream per task, or one trunk that forks here."""

    def __init__(self, base: nn.Module, streams: Streams) -> None:
        super().__init__(base, streams, streams.per_task())

    def bind(self, before: Streams, after: Streams) -> None:
        super().bind(before, after)
        self.tasks = [str(stream) for stream in after]

    def per_stream(self, x: Tensor) -> Tensor:
        """(S * B, ..., C) -> (S, M, C); S is 1 where the tasks still share their input."""
        return x.unflatten(0, (len(self.before), -1)).flatten(1, -2)  # type: ignore[no-any-return]

    def stack(self, parameters: nn.ParameterDict) -> Tensor:
        """Those of the streams that flow: (T, ...)"""
        return torch.stack([parameters[task] for task in self.tasks])


def add_to_streams(y: Tensor, vectors: Tensor) -> Tensor:
    """To the rows of each stream its own vector: y (S * B, ..., C), vectors (S, C) -> (S * B, ..., C)"""
    streams: Tensor = y.unflatten(0, (len(vectors), -1))  # (S, B, ..., C)
    return (streams + vectors.view(len(vectors), *[1] * (y.dim() - 1), -1)).flatten(0, 1)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """LayerNorm with a scale and a shift for each stream: x (S or 1, M, C), (S, C), (S, C) -> (S, M, C)"""
    return torch.addcmul(bias.unsqueeze(1), F.layer_norm(x, x.shape[-1:]), weight.unsqueeze(1))
