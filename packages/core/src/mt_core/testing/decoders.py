"""What every decoder must do, on the features of every backbone's miniature."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch

from ..backbone import Backbone
from ..decoder import Decoder
from ..discovery import registry
from ..errors import ConfigError
from ..tasks import Segmentation
from .miniatures import architectures, assert_alike


class DecoderConformance:
    """The contract of a decoder. Set `entry` to a decoder, or to the name of one that is registered."""

    entry: ClassVar[Decoder | str]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "backbone" in metafunc.fixturenames:
            metafunc.parametrize("backbone", list(architectures().values()), ids=list(architectures()))

    @pytest.fixture(params=[1, 7])
    def case(
        self, request: pytest.FixtureRequest, backbone: type[Backbone]
    ) -> tuple[torch.nn.Module, list[torch.Tensor], int]:
        torch.manual_seed(0)
        decoder = registry("decoders")[self.entry]() if isinstance(self.entry, str) else self.entry
        encoder, images = backbone.miniature()
        try:
            head = decoder.build(Segmentation("semseg", request.param), encoder)
        except ConfigError as refusal:
            pytest.skip(f"refused: {refusal}")
        with torch.no_grad():
            return head, encoder.eval()(images), request.param

    def test_gives_a_map_for_every_channel(self, case: tuple[torch.nn.Module, list[torch.Tensor], int]) -> None:
        head, features, channels = case
        logits = head(features)
        assert logits.dim() == 4
        assert logits.shape[:2] == (len(features[0]), channels)

    def test_images_do_not_mix(self, case: tuple[torch.nn.Module, list[torch.Tensor], int]) -> None:
        head, features, _ = case
        head.eval()
        assert_alike(head(features)[1:], head([level[1:] for level in features]), "images of a batch mix")

    def test_something_learns(self, case: tuple[torch.nn.Module, list[torch.Tensor], int]) -> None:
        head, features, _ = case
        head(features).square().mean().backward()
        assert any(p.grad is not None and p.grad.any() for p in head.parameters())

    def test_the_encoder_learns_through_it(self, case: tuple[torch.nn.Module, list[torch.Tensor], int]) -> None:
        head, features, _ = case
        levels = [level.clone().requires_grad_() for level in features]
        head(levels).square().mean().backward()
        assert any(level.grad is not None and level.grad.any() for level in levels)

    def test_trains_on_a_single_picture(self, case: tuple[torch.nn.Module, list[torch.Tensor], int]) -> None:
        head, features, _ = case
        assert head([level[:1] for level in features]).isfinite().all()

    def test_no_parameter_is_empty(self, case: tuple[torch.nn.Module, list[torch.Tensor], int]) -> None:
        assert all(p.numel() for p in case[0].parameters()), "ZeRO-3 refuses empty parameters"
