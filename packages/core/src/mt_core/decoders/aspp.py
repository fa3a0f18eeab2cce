"""DeepLabV3's head, atrous spatial pyramid pooling, over narrowed levels (Chen et al., 2017; head from torchvision)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

from ..backbone import Encoder
from ..decoder import Decoder
from ..errors import ConfigError
from ..task import Task
from .levels import Narrow, narrow


class PooledBatchNorm(nn.BatchNorm2d):
    """Batch norm of whole-picture averages. A batch of one picture is normalised by the running statistics.

    There is a single value per channel then, which its own mean would turn to zero whatever the picture shows; torch
    refuses to. The running statistics stay as they are: training on single pictures alone leaves 0 and 1, so that
    training and prediction agree. (B, C, 1, 1) -> (B, C, 1, 1)
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.training and input.numel() == self.num_features:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)


class ASPPHead(nn.Module):
    """Narrow every level, bring all to the finest, pool at several rates, classify.

    [(B, C_l, H_l, W_l), ...] -> (B, N, H_0, W_0)
    """

    def __init__(self, narrow: Narrow, rates: list[int], channels: int) -> None:
        super().__init__()
        self.narrow = narrow
        self.deeplab = DeepLabHead(narrow.channels, channels, rates)
        pooling = self.deeplab[0].convs[-1]
        pooling[2] = PooledBatchNorm(pooling[2].num_features)

    def forward(self, features: list[Tensor]) -> Tensor:
        return cast(Tensor, self.deeplab(self.narrow(features)))


@dataclass(kw_only=True)
class ASPP(Decoder):
    """1x1 convolutions to `widths` channels, upsampled, concatenated and read by torchvision's DeepLabV3 head.

    Attributes:
        widths: channels of each level after narrowing, finest first; a single level gets their sum.
        rates: steps of the atrous convolutions, in pixels of the finest level.
    """

    widths: list[int] = field(default_factory=lambda: [18, 36, 72, 144])
    rates: list[int] = field(default_factory=lambda: [12, 24, 36])

    def __post_init__(self) -> None:
        if min(self.widths, default=0) < 1 or min(self.rates, default=0) < 1:
            raise ConfigError(f"decoder.widths={self.widths} rates={self.rates}: expected positive whole numbers")

    def build(self, task: Task, encoder: Encoder) -> nn.Module:
        return ASPPHead(narrow(encoder, self.widths, "aspp"), self.rates, task.channels)
