"""What heads over several levels share: all levels brought to the finest, and narrowed before."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbone import Encoder
from ..errors import ConfigError


def enlarge(levels: Sequence[Tensor]) -> list[Tensor]:
    """Every level at the size of the finest. [(B, C_l, H_l, W_l), ...] -> [(B, C_l, H_0, W_0), ...]"""
    finest, size = levels[0], levels[0].shape[-2:]
    return [finest, *(F.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in levels[1:])]


class Narrow(nn.ModuleList):
    """A 1x1 convolution for each level, the results enlarged and joined.

    [(B, C_l, H_l, W_l), ...] -> (B, C, H_0, W_0), with the sum of the widths for C.
    """

    def __init__(self, incoming: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__(nn.Conv2d(i, o, 1, bias=False) for i, o in zip(incoming, widths, strict=True))
        self.channels = sum(widths)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        return torch.cat(enlarge([conv(x) for conv, x in zip(self, features, strict=True)]), dim=1)


def narrow(encoder: Encoder, widths: Sequence[int], decoder: str) -> Narrow:
    """Narrow each level of an encoder to its width. A single level gets the sum of the widths: several convolutions of
    it, joined, would be one convolution.

    Raises:
        ConfigError: if there are not as many widths as levels; `decoder` names whose they are.
    """
    incoming = [level.channels for level in encoder.levels]
    given = [sum(widths)] if len(incoming) == 1 else widths
    if len(given) != len(incoming):
        raise ConfigError(
            f"decoder {decoder} has {len(given)} widths but the backbone gives {len(incoming)} levels; "
            f"give decoder.widths one number per level"
        )
    return Narrow(incoming, given)
