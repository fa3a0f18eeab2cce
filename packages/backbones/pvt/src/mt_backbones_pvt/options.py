"""The options that v1 and v2 share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from mt_core.backbone import Backbone, Encoder
from mt_core.errors import CheckpointError, ConfigError
from mt_core.weights import read_state

from .encoder import PvtEncoder
from .names import to_ours


@dataclass(kw_only=True)
class PyramidVisionTransformer(Backbone):
    """A Pyramid Vision Transformer.

    Attributes:
        drop_path: stochastic depth of the last block; it grows linearly with depth.
        pretrained: load the ImageNet weights (needs network access once).
        checkpoint: or a file.
    """

    drop_path: float = 0.1

    image_size: ClassVar[tuple[int, int]] = (224, 224)
    architecture: ClassVar[str]

    def __post_init__(self) -> None:
        if not 0 <= self.drop_path < 1:
            raise ConfigError(f"backbone.drop_path={self.drop_path}: expected a probability below 1")
        if self.pretrained and self.checkpoint:
            raise ConfigError("backbone.pretrained and backbone.checkpoint exclude each other; give one")

    def build(self, image_size: tuple[int, int]) -> Encoder:
        encoder = self.encoder()
        encoder.check_size(image_size)
        return encoder

    def pretrained_state(self, encoder: Encoder) -> Mapping[str, Tensor] | None:
        if not (self.pretrained or self.checkpoint):
            return None
        return to_ours(self._fetched() if self.pretrained else read_state(self.checkpoint))

    @abstractmethod
    def encoder(self) -> PvtEncoder:
        """The architecture; one for pictures of all sizes."""

    @abstractmethod
    def fetch(self) -> Mapping[str, Tensor]:
        """The pretrained weights from the network, in the authors' or timm's layout."""

    def _fetched(self) -> Mapping[str, Tensor]:
        try:
            return self.fetch()
        except Exception as error:
            raise CheckpointError(
                f"pretrained weights of {self.architecture} cannot be fetched ({type(error).__name__}); "
                f"without network access give a file: backbone.checkpoint=FILE"
            ) from error
