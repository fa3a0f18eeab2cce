"""The Swin backbones and their options: architecture and weights from timm."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import timm
import torch
from timm.models.swin_transformer import SwinTransformer, checkpoint_filter_fn
from torch import Tensor

from mt_core.backbone import Backbone, Encoder
from mt_core.errors import CheckpointError, ConfigError
from mt_core.weights import read_state

from .encoder import SwinEncoder

_NOT_USED = ("norm.", "head.")  # the final norm and the classifier


class FeaturePoint(enum.StrEnum):
    """Where a stage's features are taken: see `SwinEncoder`."""

    auto = enum.auto()
    after_merging = enum.auto()
    before_merging = enum.auto()


_OF_PAPERS = {"segformer": FeaturePoint.before_merging}  # where the papers take the features of a decoder, if before


@dataclass(kw_only=True)
class Swin(Backbone):
    """A Swin Transformer.

    Attributes:
        features: take a stage's features after the patch merging that follows it (MTLoRA, TGLoRA) or before (timm);
            auto: as the decoder's papers do, before for segformer (VMT-Adapter) and after for all others.
        drop_path: stochastic depth of the last block; it grows linearly with depth.
        pretrained: load timm's ImageNet weights (needs network access once).
        checkpoint: or a file in timm's or the original Swin layout.
    """

    features: FeaturePoint = FeaturePoint.auto
    drop_path: float = 0.2

    image_size: ClassVar[tuple[int, int]] = (224, 224)
    architecture: ClassVar[str]
    overrides: ClassVar[Mapping[str, Any]] = {}

    def __post_init__(self) -> None:
        if not 0 <= self.drop_path < 1:
            raise ConfigError(f"backbone.drop_path={self.drop_path}: expected a probability below 1")
        if self.pretrained and self.checkpoint:
            raise ConfigError("backbone.pretrained and backbone.checkpoint exclude each other; give one")

    def build(self, image_size: tuple[int, int]) -> Encoder:
        return SwinEncoder(self._timm(image_size), self.features is not FeaturePoint.before_merging)

    def settled(self, decoder: str) -> Swin:
        if self.features is not FeaturePoint.auto:
            return self
        return replace(self, features=_OF_PAPERS.get(decoder, FeaturePoint.after_merging))

    def pretrained_state(self, encoder: Encoder) -> Mapping[str, Tensor] | None:
        if not (self.pretrained or self.checkpoint):
            return None
        image_size: tuple[int, int] = cast(SwinEncoder, encoder).image_size
        state = self._hub(image_size) if self.pretrained else self._convert(read_state(self.checkpoint), image_size)
        return {
            key.replace(".attn.relative_position_bias_table", ".attn.bias.table"): value
            for key, value in state.items()
            if not key.startswith(_NOT_USED)
        }

    @classmethod
    def miniature(cls) -> tuple[Encoder, Tensor]:
        tiny = SwinTransformer(
            img_size=(32, 48), patch_size=2, window_size=4, embed_dim=8, depths=(2, 1, 2, 1), num_heads=(1, 2, 2, 4),
            num_classes=0,
        )  # fmt: skip
        return SwinEncoder(tiny, after_merging=True), torch.rand(2, 3, 32, 48)

    def _timm(self, image_size: tuple[int, int], **more: Any) -> SwinTransformer:
        if min(image_size) < 32:
            raise ConfigError(
                f"image_size={list(image_size)}: Swin needs at least 32 pixels a side, the last level's step"
            )
        options = {"img_size": image_size, "num_classes": 0, "drop_path_rate": self.drop_path, **self.overrides, **more}
        return cast(SwinTransformer, timm.create_model(self.architecture, **options))

    def _hub(self, image_size: tuple[int, int]) -> Mapping[str, Tensor]:
        try:
            return self._timm(image_size, pretrained=True).state_dict()
        except Exception as error:
            raise CheckpointError(
                f"pretrained weights of {self.architecture} cannot be fetched ({type(error).__name__}); "
                f"without network access give a file: backbone.checkpoint=FILE"
            ) from error

    def _convert(self, state: Mapping[str, Tensor], image_size: tuple[int, int]) -> Mapping[str, Tensor]:
        """timm's or the original layout to timm's names, position tables resized to this image's windows."""
        with torch.device("meta"):
            reference = self._timm(image_size)
        try:
            return checkpoint_filter_fn(dict(state), reference)
        except Exception as error:
            raise CheckpointError(
                f"checkpoint {self.checkpoint} does not fit {self.architecture}: {error}; is it for another backbone?"
            ) from error


@dataclass(kw_only=True)
class SwinTiny(Swin):
    """Swin-T: width 96, blocks 2, 2, 6, 2."""

    architecture = "swin_tiny_patch4_window7_224"


@dataclass(kw_only=True)
class SwinSmall(Swin):
    """Swin-S: width 96, blocks 2, 2, 18, 2."""

    architecture = "swin_small_patch4_window7_224"


@dataclass(kw_only=True)
class SwinBase(Swin):
    """Swin-B: width 128, blocks 2, 2, 18, 2."""

    architecture = "swin_base_patch4_window7_224"


@dataclass(kw_only=True)
class SwinLarge(Swin):
    """Swin-L: width 192, blocks 2, 2, 18, 2."""

    architecture = "swin_large_patch4_window7_224"


@dataclass(kw_only=True)
class SwinNano(Swin):
    """Not from the paper: width 32, blocks 2, 2, 2, 2, for demonstrations and tests. It has no pretrained weights."""

    drop_path: float = 0.0

    architecture = "swin_tiny_patch4_window7_224"
    overrides: ClassVar[Mapping[str, Any]] = {"embed_dim": 32, "depths": (2, 2, 2, 2), "num_heads": (2, 4, 8, 16)}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pretrained:
            raise ConfigError("swin_nano has no pretrained weights; leave backbone.pretrained=false")
