"""The kit's contract of decoders: for each property something that breaks it, and only it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mt_core.tasks import Segmentation
from mt_core.testing import DecoderConformance

from .contracts import failures, properties
from .toys import Finest, ToyBackbone, ToyDecoder


class MixesImages(Finest):
    def forward(self, features: list[Tensor]) -> Tensor:
        return super().forward([features[0] - features[0].mean(0)])


class AlwaysSeven(Finest):
    def __init__(self, incoming: int, channels: int) -> None:
        super().__init__(incoming, 7)


class LearnsNothing(Finest):
    def __init__(self, incoming: int, channels: int) -> None:
        super().__init__(incoming, channels)
        self.requires_grad_(False)


class LetsNoGradientThrough(Finest):
    def forward(self, features: list[Tensor]) -> Tensor:
        return super().forward([level.detach() for level in features])


class NormalisesAverages(Finest):
    def __init__(self, incoming: int, channels: int) -> None:
        super().__init__(incoming, channels)
        self.norm = nn.BatchNorm2d(incoming)

    def forward(self, features: list[Tensor]) -> Tensor:
        return super().forward([features[0] + self.norm(features[0].mean((2, 3), keepdim=True))])


class HasAnEmptyWeight(Finest):
    def __init__(self, incoming: int, channels: int) -> None:
        super().__init__(incoming, channels)
        self.prompt = nn.Parameter(torch.empty(channels, 0))


BROKEN_HEADS = {
    MixesImages: "test_images_do_not_mix",
    AlwaysSeven: "test_gives_a_map_for_every_channel",
    LearnsNothing: "test_something_learns",
    LetsNoGradientThrough: "test_the_encoder_learns_through_it",
    NormalisesAverages: "test_trains_on_a_single_picture",
    HasAnEmptyWeight: "test_no_parameter_is_empty",
}


def decoder_failures(head: type[Finest]) -> set[str]:
    def case(channels: int) -> tuple[nn.Module, list[Tensor], int]:
        torch.manual_seed(0)
        encoder, images = ToyBackbone.miniature()
        decoder = type("BrokenDecoder", (ToyDecoder,), {"head": head})()
        with torch.no_grad():
            return decoder.build(Segmentation("semseg", channels), encoder), encoder(images), channels

    contract = DecoderConformance()
    return failures(contract, {"case": lambda: case(1)}) | failures(contract, {"case": lambda: case(7)})


def test_a_sound_decoder_passes() -> None:
    assert decoder_failures(Finest) == set()


@pytest.mark.parametrize(("head", "expected"), BROKEN_HEADS.items())
def test_a_broken_decoder_fails_what_it_breaks_and_nothing_else(head: type[Finest], expected: str) -> None:
    assert decoder_failures(head) == {expected}


def test_every_property_of_a_decoder_has_something_that_breaks_it() -> None:
    assert properties(DecoderConformance) == set(BROKEN_HEADS.values())
