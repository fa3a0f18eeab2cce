"""The SAM backbones and their options: architecture from timm, weights in SAM's or timm's layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum, auto
from functools import partial
from typing import Any, ClassVar, cast

import timm
import torch
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import Tensor, nn

from mt_core.backbone import Backbone, Encoder
from mt_core.errors import CheckpointError, ConfigError
from mt_core.weights import read_state

from .encoder import SamEncoder, check_size

PATCH = 16
_NORM: Any = partial(nn.LayerNorm, eps=1e-6)  # SAM's; timm builds 1e-5
_MASK_DECODER = ("mask_decoder.", "prompt_encoder.")  # beside "image_encoder.", all there is in SAM's own layout


class Features(StrEnum):
    """What the decoders get: see `SamEncoder`."""

    neck = auto()
    blocks = auto()


@dataclass(kw_only=True)
class Sam(Backbone):
    """Segment Anything's image encoder.

    Attributes:
        features: `neck` gives one level, the 256 channels that SAM's mask decoder reads; `blocks` gives the outputs of
            the four global-attention blocks, for decoders that want several levels. All are at 1/16. Stages follow:
            one, ending at the last block, or four.
        pretrained: load SAM's weights, mask decoder included (needs network access once).
        checkpoint: or a file, in SAM's own layout (`sam_vit_*.pth`) or timm's, which has no mask decoder.
    """

    features: Features = Features.neck

    image_size: ClassVar[tuple[int, int]] = (1024, 1024)
    architecture: ClassVar[str]
    overrides: ClassVar[Mapping[str, Any]] = {}

    def __post_init__(self) -> None:
        if self.pretrained and self.checkpoint:
            raise ConfigError("backbone.pretrained and backbone.checkpoint exclude each other; give one")

    def build(self, image_size: tuple[int, int]) -> Encoder:
        check_size(image_size, PATCH)
        vit = timm.create_model(self.architecture, num_classes=0, norm_layer=_NORM, **self.overrides)
        return _random_start(SamEncoder(cast(VisionTransformerSAM, vit), self.features is Features.neck))

    def pretrained_state(self, encoder: Encoder) -> Mapping[str, Tensor] | None:
        if not (self.pretrained or self.checkpoint):
            return None
        state = self._fetch() if self.pretrained else read_state(self.checkpoint)
        own, cast(SamEncoder, encoder).mask_decoder_state = split(state)
        return {key: x for key, x in own.items() if self.features is Features.neck or not key.startswith("neck.")}

    def usual_decoder(self) -> str:
        return "sam_mask" if self.features is Features.neck else ""

    @classmethod
    def miniature(cls) -> tuple[Encoder, Tensor]:
        tiny = VisionTransformerSAM(
            img_size=40, patch_size=8, embed_dim=16, depth=4, num_heads=2, use_rel_pos=True, window_size=3,
            global_attn_indexes=(1, 3), norm_layer=_NORM, num_classes=0,
        )  # fmt: skip
        return _random_start(SamEncoder(tiny, neck=True)), torch.rand(2, 3, 32, 48)

    def _fetch(self) -> Mapping[str, Tensor]:
        """SAM's own file, at the address that timm gives: timm's copy has no mask decoder."""
        url = cast(Any, timm.models.get_pretrained_cfg(self.architecture)).url
        try:
            return torch.hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True)
        except Exception as error:
            raise CheckpointError(
                f"pretrained weights of {self.architecture} cannot be fetched from {url} ({type(error).__name__}); "
                f"without network access give a file: backbone.checkpoint=FILE"
            ) from error


def split(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A state dict in SAM's or timm's layout -> the encoder's part under our names, the mask decoder's under SAM's."""
    decoder = {key: x for key, x in state.items() if key.startswith(_MASK_DECODER)}
    encoder = {
        key.removeprefix("image_encoder.").replace(".mlp.lin", ".mlp.fc").replace(".attn.rel_pos_", ".attn.rel_pos."): x
        for key, x in state.items()
        if key not in decoder
    }
    return encoder, decoder


def _random_start(encoder: SamEncoder) -> SamEncoder:
    """Position tables drawn at random: timm leaves them zero, and a frozen encoder would never learn of positions."""
    for name, parameter in encoder.named_parameters():
        if name == "pos_embed" or ".rel_pos." in name:
            nn.init.trunc_normal_(parameter, std=0.02)
    return encoder


@dataclass(kw_only=True)
class SamBase(Sam):
    """SAM ViT-B: width 768, 12 blocks, global attention in 3, 6, 9, 12."""

    architecture = "samvit_base_patch16"


@dataclass(kw_only=True)
class SamLarge(Sam):
    """SAM ViT-L: width 1024, 24 blocks, global attention in 6, 12, 18, 24."""

    architecture = "samvit_large_patch16"


@dataclass(kw_only=True)
class SamHuge(Sam):
    """SAM ViT-H: width 1280, 32 blocks, global attention in 8, 16, 24, 32."""

    architecture = "samvit_huge_patch16"


@dataclass(kw_only=True)
class SamNano(Sam):
    """Not from the paper: width 64, 8 blocks, every second global, for demonstrations and tests. It has no pretrained
    weights. Its neck has SAM's 256 channels, so that SAM's mask decoder reads it."""

    image_size = (256, 256)
    architecture = "samvit_base_patch16"
    overrides: ClassVar[Mapping[str, Any]] = {
        "img_size": 256, "embed_dim": 64, "depth": 8, "num_heads": 4, "window_size": 7,
        "global_attn_indexes": (1, 3, 5, 7),
    }  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pretrained:
            raise ConfigError("sam_vit_nano has no pretrained weights; leave backbone.pretrained=false")
