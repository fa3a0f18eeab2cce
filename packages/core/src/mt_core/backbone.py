"""The contract of a backbone: a frozen encoder whose forward lets streams fork."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from .site import Site


@dataclass(frozen=True)
class Level:
    """What one level of the features promises: its channels, and how many pixels one step of it spans."""

    channels: int
    stride: int


class Encoder(nn.Module, ABC):
    """Images to levels of features. Any `nn.Module` whose forward keeps streams apart, with the list of its sites.

    Attributes:
        levels: what each level promises, finest first.
        mean, std: statistics of the pretraining pictures, per channel, of pixels in [0, 1].
        checkpointing: recompute blocks in the backward pass instead of keeping their activations.
    """

    levels: tuple[Level, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    checkpointing: bool = False

    @abstractmethod
    def sites(self) -> list[Site]:
        """Every site, joins and taps included, in the order they run; one tap for each level."""

    @abstractmethod
    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images (B, 3, H, W) to the features of every stream at each tap: (S_l * B, C_l, H_l, W_l)."""

    def original(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A plain (merged) state dict under the names of the library the backbone comes from."""
        return dict(state)

    def layouts(self, state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        """The same under the names of every library that can load it, by name; `original` is the usual one."""
        return {"original": self.original(state)}


@dataclass(kw_only=True)
class Backbone(ABC):
    """An encoder that can be built. Subclasses are dataclasses: their fields are their options.

    Class attributes:
        image_size: (height, width) it was pretrained at; the size used where neither data nor user names one.
    """

    pretrained: bool = False
    checkpoint: str = ""

    image_size: ClassVar[tuple[int, int]]

    @abstractmethod
    def build(self, image_size: tuple[int, int]) -> Encoder:
        """The architecture for pictures of `image_size`, randomly initialised from torch's generator.

        Raises:
            ConfigError: if the size cannot be.
        """

    @abstractmethod
    def pretrained_state(self, encoder: Encoder) -> Mapping[str, Tensor] | None:
        """The weights that `pretrained` or `checkpoint` name, under the names of `encoder`; None for neither.

        Raises:
            CheckpointError: if they cannot be read or belong to another model.
        """

    def usual_decoder(self) -> str:
        """The name of the decoder that it brings for the features it gives; empty if it has none of its own."""
        return ""

    def settled(self, decoder: str) -> Backbone:
        """The same, with the options that were left at `auto` settled for the decoder of this name."""
        return self

    @classmethod
    @abstractmethod
    def miniature(cls) -> tuple[Encoder, Tensor]:
        """A tiny encoder of the same code, and images for it (2, 3, H, W): what the contracts are checked on."""


def describe(levels: Sequence[Level]) -> str:
    """For messages: '96 at 1/4, 192 at 1/8'."""
    return ", ".join(f"{level.channels} at 1/{level.stride}" for level in levels)
