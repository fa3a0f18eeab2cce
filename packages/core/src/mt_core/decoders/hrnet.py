"""The HRNet-like head of MTLoRA and TGLoRA (Agiza et al., CVPR 2024, section 4.1; after Wang et al., TPAMI 2020)."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from ..backbone import Encoder
from ..decoder import Decoder
from ..errors import ConfigError
from ..task import Task
from .levels import Narrow, narrow


class HRNetHead(nn.Module):
    """Narrow every level, bring all to the finest, mix, classify. [(B, C_l, H_l, W_l), ...] -> (B, N, H_0, W_0)"""

    def __init__(self, narrow: Narrow, expansion: int, channels: int) -> None:
        super().__init__()
        mixed = narrow.channels
        self.narrow = narrow
        self.mix = nn.Sequential(
            nn.Conv2d(mixed, expansion * mixed, 1),
            nn.BatchNorm2d(expansion * mixed, momentum=0.1),
            nn.ReLU(inplace=True),
            nn.Conv2d(expansion * mixed, channels, 1),
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        return self.mix(self.narrow(features))  # type: ignore[no-any-return]


@dataclass(kw_only=True)
class HRNet(Decoder):
    """Four 1x1 convolutions to `widths` channels, upsampled, concatenated and mixed by two more.

    Attributes:
        widths: channels of each level after narrowing, finest first; a single level gets their sum.
        expansion: width of the hidden layer over the sum of `widths`.
    """

    widths: list[int] = field(default_factory=lambda: [18, 36, 72, 144])
    expansion: int = 4

    def __post_init__(self) -> None:
        if min(self.widths, default=0) < 1 or self.expansion < 1:
            raise ConfigError(
                f"decoder.widths={self.widths} expansion={self.expansion}: expected positive whole numbers"
            )

    def build(self, task: Task, encoder: Encoder) -> nn.Module:
        return HRNetHead(narrow(encoder, self.widths, "hrnet"), self.expansion, task.channels)
