"""SAM as segment_anything builds it, in small, and the backbone of ours that should be the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from segment_anything import modeling
from torch import Tensor, nn

from mt_backbones_sam.encoder import SamEncoder
from mt_backbones_sam.sam import Sam, split
from mt_core.weights import load_into


@dataclass(kw_only=True)
class SmallSam(Sam):
    """Four blocks, the second and the last global, in windows of 5."""

    architecture = "samvit_base_patch16"
    overrides: ClassVar[Mapping[str, Any]] = {
        "img_size": 128, "embed_dim": 24, "depth": 4, "num_heads": 3, "window_size": 5, "global_attn_indexes": (1, 3),
    }  # fmt: skip


@dataclass(kw_only=True)
class WideSam(Sam):
    """Two blocks, one of them global, with SAM's windows and picture."""

    architecture = "samvit_base_patch16"
    overrides: ClassVar[Mapping[str, Any]] = {
        "img_size": 1024, "embed_dim": 32, "depth": 2, "num_heads": 2, "window_size": 14, "global_attn_indexes": (1,),
    }  # fmt: skip


def image_encoder(options: Mapping[str, Any]) -> modeling.ImageEncoderViT:
    """SAM's own encoder, with every value drawn at random: its position tables are zero otherwise."""
    own = {**options, "use_rel_pos": True, "norm_layer": partial(nn.LayerNorm, eps=1e-6)}
    encoder = modeling.ImageEncoderViT(out_chans=256, **own)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return encoder.eval()


def whole(options: Mapping[str, Any]) -> modeling.Sam:
    """All of SAM, configured as `segment_anything.build_sam` does but for the encoder's size."""
    side = options["img_size"]
    prompts = modeling.PromptEncoder(256, (side // 16, side // 16), (side, side), mask_in_chans=16)
    return modeling.Sam(image_encoder(options), prompts, mask_decoder())


def mask_decoder(width: int = 256) -> modeling.MaskDecoder:
    """SAM's own mask decoder, or one of another width."""
    transformer = modeling.TwoWayTransformer(depth=2, embedding_dim=width, mlp_dim=8 * width, num_heads=8)
    return modeling.MaskDecoder(transformer_dim=width, transformer=transformer)


def same_as(original: modeling.ImageEncoderViT, backbone: Sam, size: tuple[int, int]) -> SamEncoder:
    """Our encoder with the weights of SAM's."""
    encoder = backbone.build(size)
    assert isinstance(encoder, SamEncoder)
    state: dict[str, Tensor] = {f"image_encoder.{name}": x for name, x in original.state_dict().items()}
    load_into(encoder, split(state)[0], "SAM's weights")
    encoder.eval()
    return encoder
