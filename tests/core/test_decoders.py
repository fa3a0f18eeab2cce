"""The HRNet-like head, against its description written out, and what it refuses."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from mt_core.backbone import Encoder, Level, describe
from mt_core.decoders.hrnet import HRNet, HRNetHead
from mt_core.errors import ConfigError
from mt_core.site import Site
from mt_core.tasks import Segmentation


class Levels(Encoder):
    """Promises levels, and gives nothing."""

    def __init__(self, *levels: Level) -> None:
        super().__init__()
        self.levels = levels

    def sites(self) -> list[Site]:
        return []

    def forward(self, images: Tensor) -> list[Tensor]:
        return []


FOUR = Levels(Level(8, 8), Level(16, 16), Level(32, 32), Level(32, 32))


def head_of(decoder: HRNet, channels: int = 5) -> HRNetHead:
    head = decoder.build(Segmentation("semseg", channels), FOUR)
    assert isinstance(head, HRNetHead)
    return head


def test_the_widths_are_the_papers() -> None:
    head = head_of(HRNet(), channels=21)
    narrow = [conv.weight.shape for conv in head.narrow]
    assert narrow == [(18, 8, 1, 1), (36, 16, 1, 1), (72, 32, 1, 1), (144, 32, 1, 1)]
    assert all(conv.bias is None for conv in head.narrow)
    wide, norm, _, last = head.mix
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.momentum == 0.1
    assert (wide.weight.shape, last.weight.shape) == ((1080, 270, 1, 1), (21, 1080, 1, 1))


def test_it_narrows_enlarges_joins_mixes_and_classifies() -> None:
    head = head_of(HRNet(widths=[2, 3, 4, 5], expansion=2)).eval()
    features = [torch.randn(2, 8, 8, 12), torch.randn(2, 16, 4, 6), torch.randn(2, 32, 2, 3), torch.randn(2, 32, 2, 3)]
    enlarged = [
        F.interpolate(F.conv2d(x, conv.weight), size=(8, 12), mode="bilinear")  # type: ignore[arg-type]
        for x, conv in zip(features, head.narrow, strict=True)
    ]
    first, norm, _, last = head.mix
    expected = last(F.relu(norm(first(torch.cat(enlarged, 1)))))
    assert_close(head(features), expected)
    assert expected.shape == (2, 5, 8, 12)


@pytest.mark.parametrize("options", [{"widths": [18, 0]}, {"widths": []}, {"expansion": 0}])
def test_widths_that_cannot_be_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"decoder.widths=\[.*\] expansion=\d: expected positive whole numbers"):
        HRNet(**options)  # type: ignore[arg-type]


def test_a_backbone_with_another_number_of_levels_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"decoder hrnet has 4 widths but the backbone gives 2 levels; give"):
        HRNet().build(Segmentation("semseg", 5), Levels(Level(8, 4), Level(16, 8)))


def test_levels_are_described_for_messages() -> None:
    assert describe(FOUR.levels[:2]) == "8 at 1/8, 16 at 1/16"
