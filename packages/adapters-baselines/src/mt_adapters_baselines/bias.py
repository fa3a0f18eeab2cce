"""BitFit (Ben Zaken et al., ACL 2022) and its like: only biases are trained, for all tasks or a set for each."""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mt_core.adapter import Adapter
from mt_core.backbone import Encoder
from mt_core.errors import ConfigError
from mt_core.site import Role, Site
from mt_core.streams import Streams

from .per_task import PerTask, add_to_streams


class TaskBias(PerTask):
    """The frozen layer with a bias more for each task: y_t = W x_t + b + b_t. (S * B, ..., k) -> (T * B, ..., d)"""

    unmergeable = "its bias changes, and only weights are merged"

    def __init__(self, base: nn.Module, streams: Streams, bias: Tensor) -> None:
        super().__init__(base, streams)
        self.bias = _zeros(self.full_after.tasks, bias)

    def forward(self, x: Tensor) -> Tensor:
        return add_to_streams(self.fork(self.base(x)), self.stack(self.bias))


class TaskEmbeddingNorm(TaskBias):
    """The norm at the end of a patch embedding, with the convolution before it: y_t = Norm(x_t + a_t) + b_t.

    The convolution's bias is added here, because a fork inside the embedding is only possible where it has a site.
    """

    def __init__(self, base: nn.LayerNorm, streams: Streams) -> None:
        super().__init__(base, streams, base.bias)
        self.embedding_bias = _zeros(self.full_after.tasks, base.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = add_to_streams(self.fork(x), self.stack(self.embedding_bias))
        return add_to_streams(self.base(x), self.stack(self.bias))


class TaskPositionBias(PerTask):
    """A copy of a relative position bias for each task. No tokens pass it. -> (T, heads, N, N)"""

    unmergeable = "it replaces a table of position biases, and only weights are merged"

    def __init__(self, base: nn.Module, streams: Streams) -> None:
        super().__init__(base, streams)
        self.copies = nn.ModuleDict({task: copy.deepcopy(base) for task in self.full_after.tasks}).requires_grad_(True)

    def forward(self) -> Tensor:
        return torch.stack([self.copies[task]() for task in self.tasks])


class TaskFork(PerTask):
    """Forks the frozen layer's output, for a position bias of each task's own behind it."""

    unmergeable = "the streams of the tasks fork there"

    def forward(self, x: Tensor) -> Tensor:
        return self.fork(self.base(x))


@dataclass
class BitFit(Adapter):
    """Trains the biases of the encoder.

    Attributes:
        per_task: a set of biases for each task, each a stream of its own (Multiple BitFit); else one for all. Biases
            of what is no site (SAM's neck, PVT's spatial reduction) stay frozen then.
        pos_bias: also the tables of relative position biases. The published counts include them.
    """

    per_task: bool = False
    pos_bias: bool = True

    def adapt(self, site: Site, module: nn.Module, streams: Streams) -> nn.Module | None:
        if is_relative(site):
            return None if not self.pos_bias else position_bias(site, module, streams, self.per_task)
        return self._biased(site, module, streams) if self.per_task else None

    def attached(self, encoder: Encoder) -> None:
        if not self.per_task:
            for name, parameter in encoder.named_parameters():
                if name.endswith(".bias"):
                    parameter.requires_grad_(True)

    def _biased(self, site: Site, module: nn.Module, streams: Streams) -> nn.Module | None:
        if isinstance(module, nn.LayerNorm) and module.bias is not None:
            if site.path.startswith(f"{site.reads}."):  # it ends the patch embedding that it is part of
                return TaskEmbeddingNorm(module, streams)
            return TaskBias(module, streams, module.bias)
        if isinstance(module, nn.Linear) and module.bias is not None:
            return TaskBias(module, streams, module.bias)
        inside = [] if site.role is not Role.patch_embed else list(module.modules())
        biases = [child.bias for child in inside if isinstance(child, nn.Conv2d) and child.bias is not None]
        if biases and not any(isinstance(child, nn.LayerNorm) for child in inside):
            return TaskBias(module, streams, biases[-1])
        return None


@dataclass
class RelativeBias(Adapter):
    """Trains the tables of relative position biases and nothing else.

    Attributes:
        per_task: a table for each task, each a stream of its own; else one for all.
    """

    per_task: bool = False

    def adapt(self, site: Site, module: nn.Module, streams: Streams) -> nn.Module | None:
        if is_relative(site):
            return position_bias(site, module, streams, self.per_task)
        if site.role is Role.qkv and self.per_task and streams != streams.per_task():
            return TaskFork(module, streams)
        return None

    def attached(self, encoder: Encoder) -> None:
        if not any(parameter.requires_grad for parameter in encoder.parameters()):
            raise ConfigError(
                f"adapter relative_bias needs relative position biases, and {type(encoder).__name__} has none; "
                f"use a backbone that has them (Swin), or adapter=bitfit"
            )


def is_relative(site: Site) -> bool:
    """Whether it is a bias of attention, which stands beside the qkv that it reads; else it is one of the tokens."""
    return site.role is Role.pos_bias and site.path.rpartition(".")[0] == (site.reads or "").rpartition(".")[0]


def position_bias(site: Site, module: nn.Module, streams: Streams, per_task: bool) -> nn.Module:
    """The bias itself, to be trained for all tasks, or one for each.

    Raises:
        ConfigError: if there is to be one for each, but it is no table of numbers to add to the logits.
    """
    if not per_task:
        return module
    if inspect.signature(module.forward).parameters:
        raise ConfigError(
            f"{site.path} ({type(module).__name__}) is multiplied with the queries: there is no bias of each task's "
            f"own to add to the logits; use adapter.per_task=false, or for bitfit adapter.pos_bias=false"
        )
    return TaskPositionBias(module, streams)


def _zeros(tasks: tuple[str, ...], like: Tensor) -> nn.ParameterDict:
    return nn.ParameterDict({task: nn.Parameter(torch.zeros_like(like)) for task in tasks})
