"""PVT v1 (Wang et al.: Pyramid Vision Transformer, ICCV 2021): parts from timm, weights from the authors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar, cast

import torch
from timm.layers.mlp import Mlp
from timm.layers.patch_embed import PatchEmbed
from timm.models import pvt_v2
from torch import Tensor, nn

from mt_core.backbone import Encoder
from mt_core.errors import ConfigError

from .encoder import STRIDES, Block, PositionEmbedding, PvtEncoder, Stage
from .names import to_authors
from .options import PyramidVisionTransformer

_RELEASE = "https://github.com/whai362/PVT/releases/download/v2"
_LAST_POSITIONS = "stages.3.pos_embed.table"


class PvtV1Encoder(PvtEncoder):
    """PVT v1 as its authors use it for dense prediction: without the class token, the final norm and the classifier.

    Position tables keep the size they were pretrained at and are resized in each forward, so pictures may have any
    size that the patches of all stages fill: multiples of 32.
    """

    def check_size(self, size: tuple[int, int]) -> None:
        step = STRIDES[-1]
        if any(side < step or side % step for side in size):
            nearest = [max(1, round(side / step)) * step for side in size]
            raise ConfigError(f"image_size={list(size)}: PVT v1 needs multiples of {step}; try {nearest}")

    def original(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The authors' names. The class token's place in the last position table, which nothing reads, is zero."""
        table = state[_LAST_POSITIONS]
        return to_authors({**state, _LAST_POSITIONS: torch.cat([torch.zeros_like(table[:, :1]), table], dim=1)})


@dataclass(frozen=True)
class Shape:
    """The sizes of a PVT v1, stage by stage.

    Attributes:
        depths: number of blocks.
        widths: channels.
        heads: of attention.
        ratios: of the hidden width of the feed-forward network to `widths`.
        reductions: how much coarser the grid of keys and values is, on each side.
        pretrained_at: side of the pictures that the position tables are made for.
    """

    depths: Sequence[int]
    widths: Sequence[int] = (64, 128, 320, 512)
    heads: Sequence[int] = (1, 2, 5, 8)
    ratios: Sequence[int] = (8, 8, 4, 4)
    reductions: Sequence[int] = (8, 4, 2, 1)
    pretrained_at: int = 224

    def build(self, drop_path: float) -> PvtV1Encoder:
        """The encoder, randomly initialised; the rate of stochastic depth grows from 0 to `drop_path`."""
        rates = torch.linspace(0, drop_path, sum(self.depths), device="cpu").tolist()
        starts = accumulate(self.depths, initial=0)
        stages = [self._stage(i, rates[start:]) for i, start in zip(range(4), starts, strict=False)]
        return PvtV1Encoder(stages)

    def _stage(self, i: int, rates: Sequence[float]) -> Stage:
        width, inputs, patch = self.widths[i], (3, *self.widths)[i], STRIDES[0] if i == 0 else 2
        embed = PatchEmbed(None, patch, inputs, width, norm_layer=nn.LayerNorm, flatten=False, output_fmt="NHWC")
        side = self.pretrained_at // STRIDES[i]
        blocks = [self._block(i, rate) for rate in rates[: self.depths[i]]]
        return Stage(embed, blocks, PositionEmbedding((side, side), width))

    def _block(self, i: int, rate: float) -> Block:
        """A block of v2 (whose norms have the epsilons of v1), its feed-forward network without the convolution."""
        width = self.widths[i]
        block = pvt_v2.Block(width, self.heads[i], sr_ratio=self.reductions[i], qkv_bias=True, drop_path=rate)
        return Block(block, Mlp(width, width * self.ratios[i])).apply(_initialise)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


@dataclass(kw_only=True)
class Pvt(PyramidVisionTransformer):
    """A PVT v1. Files are in the authors' layout (`pvt_tiny.pth`)."""

    shape: ClassVar[Shape]

    def encoder(self) -> PvtEncoder:
        return self.shape.build(self.drop_path)

    def pretrained_state(self, encoder: Encoder) -> Mapping[str, Tensor] | None:
        state = super().pretrained_state(encoder)
        if state is None or (table := state.get(_LAST_POSITIONS)) is None or table.dim() != 3:
            return state
        return {**state, _LAST_POSITIONS: table[:, 1:]}  # the first is the class token's

    def fetch(self) -> Mapping[str, Tensor]:
        url = f"{_RELEASE}/{self.architecture}.pth"
        state: dict[str, Any] = torch.hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True)
        return cast(dict[str, Tensor], state.get("model", state))

    @classmethod
    def miniature(cls) -> tuple[Encoder, Tensor]:
        tiny = Shape((2, 1, 2, 1), (8, 16, 16, 24), (1, 2, 2, 4), (2, 2, 2, 2), (4, 2, 2, 1), pretrained_at=64)
        return tiny.build(drop_path=0.0), torch.rand(2, 3, 64, 96)


@dataclass(kw_only=True)
class PvtTiny(Pvt):
    """PVT-Tiny: widths 64, 128, 320, 512; blocks 2, 2, 2, 2."""

    architecture = "pvt_tiny"
    shape = Shape((2, 2, 2, 2))


@dataclass(kw_only=True)
class PvtSmall(Pvt):
    """PVT-Small: widths 64, 128, 320, 512; blocks 3, 4, 6, 3."""

    architecture = "pvt_small"
    shape = Shape((3, 4, 6, 3))


@dataclass(kw_only=True)
class PvtMedium(Pvt):
    """PVT-Medium: widths 64, 128, 320, 512; blocks 3, 4, 18, 3."""

    architecture = "pvt_medium"
    shape = Shape((3, 4, 18, 3))


@dataclass(kw_only=True)
class PvtLarge(Pvt):
    """PVT-Large: widths 64, 128, 320, 512; blocks 3, 8, 27, 3."""

    architecture = "pvt_large"
    shape = Shape((3, 8, 27, 3))


@dataclass(kw_only=True)
class PvtNano(Pvt):
    """Not from the paper: widths 32, 64, 128, 256, two blocks a stage, for demonstrations and tests. It has no
    pretrained weights."""

    drop_path: float = 0.0

    architecture = "pvt_nano"
    shape = Shape((2, 2, 2, 2), (32, 64, 128, 256), (1, 2, 4, 8), (4, 4, 4, 4))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pretrained:
            raise ConfigError("pvt_nano has no pretrained weights; leave backbone.pretrained=false")
