"""The All-MLP head of SegFormer (Xie et al., NeurIPS 2021, section 3.2), with a layer norm for each level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from ..backbone import Encoder
from ..decoder import Decoder
from ..errors import ConfigError
from ..task import Task
from .levels import enlarge


class Fuse(nn.Conv2d):
    """A 1x1 convolution of all levels, enlarged and concatenated. [(B, C, H_l, W_l), ...] -> (B, C', H_0, W_0)

    Both steps are linear and one acts on channels, the other on places: so each level goes through its own part of the
    kernel first, at its own size, and the enlarged results are added. The same numbers for a third of the products.
    """

    def forward(self, levels: list[Tensor]) -> Tensor:  # type: ignore[override]
        kernels = self.weight.split([x.shape[1] for x in levels], dim=1)
        fused, *others = enlarge([F.conv2d(x, kernel) for x, kernel in zip(levels, kernels, strict=True)])
        for x in others:
            fused = fused + x
        return fused


class SegformerHead(nn.Module):
    """Bring every level to `hidden` channels and to the finest size, fuse, classify.

    [(B, C_l, H_l, W_l), ...] -> (B, N, H_0, W_0)
    """

    def __init__(self, incoming: list[int], hidden: int, dropout: float, channels: int) -> None:
        super().__init__()
        self.embed = nn.ModuleList(nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden)) for width in incoming)
        self.fuse = Fuse(len(incoming) * hidden, hidden, 1, bias=False)
        self.classify = nn.Sequential(
            nn.BatchNorm2d(hidden), nn.ReLU(inplace=True), nn.Dropout2d(dropout), nn.Conv2d(hidden, channels, 1)
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        pixels = [embed(x.permute(0, 2, 3, 1)) for embed, x in zip(self.embed, features, strict=True)]  # (B, H, W, C)
        return cast(Tensor, self.classify(self.fuse([x.permute(0, 3, 1, 2) for x in pixels])))


@dataclass(kw_only=True)
class Segformer(Decoder):
    """A layer norm and a linear layer per level, upsampled, concatenated, fused and classified; any number of levels.

    Attributes:
        hidden: channels of every level, and of the fused map.
        dropout: share of the fused map's channels that are dropped in training.
    """

    hidden: int = 256
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.hidden < 1:
            raise ConfigError(f"decoder.hidden={self.hidden}: expected a positive number of channels")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"decoder.dropout={self.dropout}: expected a share from 0 to below 1")

    def build(self, task: Task, encoder: Encoder) -> nn.Module:
        return SegformerHead([level.channels for level in encoder.levels], self.hidden, self.dropout, task.channels)
