"""PVT v2 (Wang et al.: PVT v2, Computational Visual Media 2022): architecture and weights from timm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import timm
import torch
from timm.models.pvt_v2 import PyramidVisionTransformerV2
from torch import Tensor

from mt_core.backbone import Encoder
from mt_core.errors import ConfigError

from .encoder import STRIDES, Block, ConvMlp, PvtEncoder, Stage
from .names import to_timm
from .options import PyramidVisionTransformer


class PvtV2Encoder(PvtEncoder):
    """PVT v2 without its classifier. Places are told apart by convolutions: pictures may have any size from 32 on.

    Args:
        pvt: timm's model, whose parts are taken over.
    """

    def __init__(self, pvt: PyramidVisionTransformerV2) -> None:
        stages = [cast(Any, stage) for stage in pvt.stages]
        embeds = [pvt.patch_embed, *(stage.downsample for stage in stages[1:])]
        super().__init__(
            [
                Stage(embed, [Block(block, ConvMlp(block.mlp)) for block in stage.blocks], norm=stage.norm)
                for embed, stage in zip(embeds, stages, strict=True)
            ]
        )

    def check_size(self, size: tuple[int, int]) -> None:
        if min(size) < STRIDES[-1]:
            raise ConfigError(
                f"image_size={list(size)}: PVT v2 needs at least {STRIDES[-1]} pixels a side, the last level's step"
            )

    def original(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return to_timm(state)


@dataclass(kw_only=True)
class PvtV2(PyramidVisionTransformer):
    """A PVT v2. Files are in timm's layout or that of the authors (`pvt_v2_b0.pth`)."""

    def encoder(self) -> PvtEncoder:
        return PvtV2Encoder(self._timm())

    def fetch(self) -> Mapping[str, Tensor]:
        return self._timm(pretrained=True).state_dict()

    @classmethod
    def miniature(cls) -> tuple[Encoder, Tensor]:
        tiny = PyramidVisionTransformerV2(
            num_classes=0, depths=(2, 1, 2, 1), embed_dims=(8, 16, 16, 24), num_heads=(1, 2, 2, 4),
            sr_ratios=(4, 2, 2, 1), mlp_ratios=(2, 2, 2, 2),
        )  # fmt: skip
        return PvtV2Encoder(tiny), torch.rand(2, 3, 64, 96)

    def _timm(self, **more: Any) -> PyramidVisionTransformerV2:
        options = {"num_classes": 0, "drop_path_rate": self.drop_path, **more}
        return cast(PyramidVisionTransformerV2, timm.create_model(self.architecture, **options))


@dataclass(kw_only=True)
class PvtV2B0(PvtV2):
    """PVT v2-B0: widths 32, 64, 160, 256; blocks 2, 2, 2, 2."""

    architecture = "pvt_v2_b0"


@dataclass(kw_only=True)
class PvtV2B1(PvtV2):
    """PVT v2-B1: widths 64, 128, 320, 512; blocks 2, 2, 2, 2."""

    architecture = "pvt_v2_b1"


@dataclass(kw_only=True)
class PvtV2B2(PvtV2):
    """PVT v2-B2: widths 64, 128, 320, 512; blocks 3, 4, 6, 3."""

    architecture = "pvt_v2_b2"


@dataclass(kw_only=True)
class PvtV2B3(PvtV2):
    """PVT v2-B3: widths 64, 128, 320, 512; blocks 3, 4, 18, 3."""

    architecture = "pvt_v2_b3"


@dataclass(kw_only=True)
class PvtV2B4(PvtV2):
    """PVT v2-B4: widths 64, 128, 320, 512; blocks 3, 8, 27, 3."""

    architecture = "pvt_v2_b4"


@dataclass(kw_only=True)
class PvtV2B5(PvtV2):
    """PVT v2-B5: widths 64, 128, 320, 512; blocks 3, 6, 40, 3, with narrower feed-forward networks."""

    architecture = "pvt_v2_b5"
