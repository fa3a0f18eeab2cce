"""Visual prompt tuning (Jia et al., ECCV 2022), shallow and deep: tokens that the picture's attend to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from mt_core.adapter import Adapter, SiteModule
from mt_core.backbone import Encoder
from mt_core.errors import ConfigError
from mt_core.site import Prompts, Role, Site
from mt_core.streams import Streams

from .per_task import PerTask

_TOKENS = "prompts are tokens, which are no change of weight"


class SharedPrompts(SiteModule):
    """The same prompts for every stream: x (B, ..., C) -> x, (B, P, C). What came before them goes."""

    unmergeable = _TOKENS

    def __init__(self, base: nn.Module, start: Tensor) -> None:
        super().__init__(base)
        self.prompts = nn.Parameter(start)  # (P, C)

    def forward(self, x: Tensor, _: Tensor | None) -> tuple[Tensor, Tensor]:
        return x, self.prompts.expand(len(x), -1, -1)


class TaskPrompts(PerTask):
    """Prompts for each task: x (S * B, ..., C) -> x (T * B, ..., C), (T * B, P, C). What came before them goes."""

    unmergeable = _TOKENS

    def __init__(self, base: nn.Module, streams: Streams, starts: dict[str, Tensor]) -> None:
        super().__init__(base, streams)
        self.prompts = nn.ParameterDict({task: nn.Parameter(start) for task, start in starts.items()})  # (P, C)

    def forward(self, x: Tensor, _: Tensor | None) -> tuple[Tensor, Tensor]:
        x = self.fork(x)  # (T * B, ..., C)
        return x, self.stack(self.prompts).repeat_interleave(len(x) // len(self.tasks), 0)  # (T * B, P, C)


@dataclass
class VPTShallow(Adapter):
    """Prompts join the picture's tokens at the first block and go through the encoder with them.

    On Swin they stand in every window, without a position, and pass the patch merging as four copies. The paper says
    how for plain vision transformers and for Swin; other backbones are refused.

    Attributes:
        tokens: how many prompts.
        per_task: prompts for each task, each a stream of its own; else the same for all.
        bound: prompts start uniform between -bound and bound. The default is the paper's for Swin-T,
            sqrt(6 / (3 * 4^2 + 96)).
    """

    tokens: int = 50
    per_task: bool = True
    bound: float = 0.204

    starts_as_identity: ClassVar[bool] = False  # however small, prompts take their share of the softmax

    def __post_init__(self) -> None:
        if self.tokens < 1 or self.bound <= 0:
            raise ConfigError(f"tokens={self.tokens} bound={self.bound}: expected at least one token, a bound above 0")

    def adapt(self, site: Site, module: nn.Module, streams: Streams) -> nn.Module | None:
        if not isinstance(module, Prompts) or not self.joins(site):
            return None
        if self.per_task:
            return TaskPrompts(module, streams, {task: self._start(module) for task in streams.tasks})
        return SharedPrompts(module, self._start(module))

    def attached(self, encoder: Encoder) -> None:
        """Bring the prompts to the encoder's type and place: where they join there is no weight to tell by."""
        if all(site.role is not Role.prompts for site in encoder.sites()):
            raise ConfigError(
                f"{type(encoder).__name__} has no place for prompts: visual prompt tuning is defined for Swin "
                f"and for plain vision transformers, neither for windows whose positions depend on the query (SAM) nor "
                f"for keys and values of reduced size (PVT); use a Swin backbone"
            )
        for module in encoder.modules():
            if isinstance(module, (SharedPrompts, TaskPrompts)):
                module.to(next(encoder.parameters()))

    def joins(self, site: Site) -> bool:
        """Whether prompts join at this block."""
        return site.block == 0

    def _start(self, module: Prompts) -> Tensor:
        return torch.empty(self.tokens, module.width).uniform_(-self.bound, self.bound)


@dataclass
class VPTDeep(VPTShallow):
    """Every block has prompts of its own, which take the place of those that come out of the block before."""

    def joins(self, site: Site) -> bool:
        return True
