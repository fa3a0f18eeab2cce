"""The heads of core against their descriptions written out, their counts, and what they refuse."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from mt_core.backbone import Encoder, Level, describe
from mt_core.decoder import Decoder
from mt_core.decoders.aspp import ASPP, ASPPHead, PooledBatchNorm
from mt_core.decoders.hrnet import HRNet, HRNetHead
from mt_core.decoders.segformer import Segformer, SegformerHead
from mt_core.errors import ConfigError
from mt_core.site import Site
from mt_core.tasks import Segmentation
from mt_core.testing.miniatures import randomise


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
ONE = Levels(Level(8, 16))
SWIN_AFTER = Levels(Level(192, 8), Level(384, 16), Level(768, 32), Level(768, 32))
SWIN_BEFORE = Levels(Level(96, 4), Level(192, 8), Level(384, 16), Level(768, 32))
PASCAL = (21, 7, 1, 3)  # channels of semseg, human_parts, saliency and normals
DECODERS = [HRNet(), ASPP(), Segformer()]


def head_of(decoder: Decoder, encoder: Encoder = FOUR, channels: int = 5) -> nn.Module:
    """A head whose norms and statistics are not those it starts with."""
    torch.manual_seed(0)
    head = decoder.build(Segmentation("semseg", channels), encoder)
    randomise(list(head.parameters()), 0.1)
    for norm in norms(head):
        randomise([norm.running_mean], 0.3)  # type: ignore[list-item]
        norm.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
    return head.eval()


def norms(head: nn.Module) -> Iterator[nn.BatchNorm2d]:
    return (module for module in head.modules() if isinstance(module, nn.BatchNorm2d))


def features_of(encoder: Encoder, batch: int = 2) -> list[Tensor]:
    return [torch.randn(batch, level.channels, 64 // level.stride, 96 // level.stride) for level in encoder.levels]


def enlarged(levels: list[Tensor]) -> Tensor:
    size = levels[0].shape[-2:]
    return torch.cat([F.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in levels], 1)


def parameters(decoder: Decoder, encoder: Encoder, channels: int) -> int:
    with torch.device("meta"):
        head = decoder.build(Segmentation("semseg", channels), encoder)
    return sum(p.numel() for p in head.parameters())


# -------------------------------------------------------------------------------------------------- hrnet


def test_the_widths_are_the_papers() -> None:
    head = head_of(HRNet(), channels=21)
    assert isinstance(head, HRNetHead)
    narrow = [conv.weight.shape for conv in head.narrow]
    assert narrow == [(18, 8, 1, 1), (36, 16, 1, 1), (72, 32, 1, 1), (144, 32, 1, 1)]
    assert all(conv.bias is None for conv in head.narrow)
    wide, norm, _, last = head.mix
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.momentum == 0.1
    assert (wide.weight.shape, last.weight.shape) == ((1080, 270, 1, 1), (21, 1080, 1, 1))


def test_hrnet_narrows_enlarges_joins_mixes_and_classifies() -> None:
    head, features = head_of(HRNet(widths=[2, 3, 4, 5], expansion=2)), features_of(FOUR)
    assert isinstance(head, HRNetHead)
    narrowed = [F.conv2d(x, conv.weight) for x, conv in zip(features, head.narrow, strict=True)]  # type: ignore[arg-type]
    first, norm, _, last = head.mix
    expected = last(F.relu(norm(first(enlarged(narrowed)))))
    assert_close(head(features), expected)
    assert expected.shape == (2, 5, 8, 12)


# --------------------------------------------------------------------------------------------------- aspp


@pytest.mark.parametrize("rates", [[1, 2], [12, 24, 36]], ids=str)
def test_aspp_narrows_enlarges_joins_and_pools_at_several_rates_and_over_the_picture(rates: list[int]) -> None:
    head, features = head_of(ASPP(widths=[2, 3, 4, 5], rates=rates)), features_of(FOUR)
    assert isinstance(head, ASPPHead)
    x = enlarged([F.conv2d(x, conv.weight) for x, conv in zip(features, head.narrow, strict=True)])  # type: ignore[arg-type]
    pyramid, conv, norm, _, last = head.deeplab
    (conv0, norm0, _), *atrous, (_, conv_p, norm_p, _) = pyramid.convs
    branches = [F.relu(norm0(F.conv2d(x, conv0.weight)))]
    for rate, (conv_r, norm_r, _) in zip(rates, atrous, strict=True):
        branches.append(F.relu(norm_r(F.conv2d(x, conv_r.weight, padding=rate, dilation=rate))))
    average = F.relu(norm_p(F.conv2d(x.mean((2, 3), keepdim=True), conv_p.weight)))
    project, norm1, _, dropout = pyramid.project
    y = F.relu(norm1(F.conv2d(torch.cat([*branches, average.expand_as(branches[0])], 1), project.weight)))
    expected = last(F.relu(norm(F.conv2d(y, conv.weight, padding=1))))
    assert_close(head(features), expected)
    assert expected.shape == (2, 5, 8, 12)
    assert dropout.p == 0.5


def test_the_average_of_one_picture_is_normalised_by_the_running_statistics_which_stay() -> None:
    torch.manual_seed(0)
    norm, x = PooledBatchNorm(4), torch.randn(1, 4, 1, 1)
    randomise([norm.running_mean, norm.weight, norm.bias], 0.5)  # type: ignore[list-item]
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    assert_close(norm.train()(x), norm.eval()(x))
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())


def test_the_averages_of_several_pictures_are_normalised_as_ever() -> None:
    norm, plain, x = PooledBatchNorm(4), nn.BatchNorm2d(4), torch.randn(3, 4, 1, 1)
    assert_close(norm(x), plain(x))
    assert_close(norm.state_dict(), plain.state_dict())


# ---------------------------------------------------------------------------------------------- segformer


@pytest.mark.parametrize("encoder", [FOUR, Levels(*FOUR.levels[1:3]), ONE], ids=lambda e: f"{len(e.levels)} levels")
def test_segformer_normalises_projects_enlarges_joins_fuses_and_classifies(encoder: Encoder) -> None:
    head, features = head_of(Segformer(hidden=6), encoder), features_of(encoder)
    assert isinstance(head, SegformerHead)
    embedded = []
    for embed, x in zip(head.embed, features, strict=True):
        norm, linear = embed.children()
        assert isinstance(norm, nn.LayerNorm)
        assert isinstance(linear, nn.Linear)
        y = F.layer_norm(x.permute(0, 2, 3, 1), norm.normalized_shape, norm.weight, norm.bias)
        embedded.append((y @ linear.weight.T + linear.bias).permute(0, 3, 1, 2))
    batch_norm, _, dropout, last = head.classify
    expected = last(F.relu(batch_norm(F.conv2d(enlarged(embedded), head.fuse.weight))))
    assert_close(head(features), expected)
    assert expected.shape == (2, 5, *features[0].shape[-2:])
    assert dropout.p == 0.1


def test_segformer_multiplies_less_than_its_description() -> None:
    with torch.device("meta"):
        head, features = head_of(Segformer(), SWIN_BEFORE), features_of(SWIN_BEFORE)
        with FlopCounterMode(display=False) as ours:
            head(features)
    sizes = [x.shape[-2] * x.shape[-1] for x in features]
    embed = sum(size * level.channels * 256 for size, level in zip(sizes, SWIN_BEFORE.levels, strict=True))
    fuse, classify = sum(sizes) * 256 * 256, sizes[0] * 256 * 5
    assert ours.get_total_flops() == 2 * 2 * (embed + fuse + classify)  # two pictures, two operations each
    assert fuse < sizes[0] * 1024 * 256 / 3


def test_segformer_drops_whole_channels_in_training_only() -> None:
    head, features = head_of(Segformer(dropout=0.5), ONE), features_of(ONE)
    assert torch.equal(head(features), head(features))
    assert not torch.equal(head.train()(features), head(features))
    assert isinstance(head, SegformerHead)
    assert isinstance(head.classify[2], nn.Dropout2d)


# --------------------------------------------------------------------------------------------- all of them


@pytest.mark.parametrize("channels", PASCAL)
def test_parameters_in_closed_form(channels: int) -> None:
    assert parameters(HRNet(), SWIN_AFTER, channels) == 478_008 + 1081 * channels
    assert parameters(ASPP(), SWIN_AFTER, channels) == 3_108_736 + 257 * channels
    assert parameters(Segformer(), SWIN_BEFORE, channels) == 635_200 + 257 * channels


@pytest.mark.parametrize(
    ("decoder", "encoder", "total"),
    [(HRNet(), SWIN_AFTER, 1_946_624), (ASPP(), SWIN_AFTER, 12_443_168), (Segformer(), SWIN_BEFORE, 2_549_024)],
    ids=["hrnet", "aspp", "segformer"],
)
def test_parameters_of_the_four_tasks_of_pascal(decoder: Decoder, encoder: Encoder, total: int) -> None:
    assert sum(parameters(decoder, encoder, channels) for channels in PASCAL) == total


@pytest.mark.parametrize("decoder", [HRNet(), ASPP()], ids=["hrnet", "aspp"])
def test_a_single_level_gets_the_sum_of_the_widths_which_is_the_same_as_all_of_them(decoder: HRNet | ASPP) -> None:
    one = head_of(decoder, ONE)
    again = head_of(decoder, Levels(*ONE.levels * 4))
    assert isinstance(one, HRNetHead | ASPPHead)
    assert [conv.weight.shape for conv in one.narrow] == [(270, 8, 1, 1)]
    state = {name: x for name, x in one.state_dict().items() if not name.startswith("narrow.")}
    parts = one.narrow[0].weight.split(decoder.widths)  # type: ignore[operator]
    again.load_state_dict({**state, **{f"narrow.{i}.weight": part for i, part in enumerate(parts)}})
    (x,) = features_of(ONE)
    assert_close(one([x]), again([x] * 4))


@pytest.mark.parametrize("encoder", [FOUR, ONE], ids=["four levels", "one level"])
@pytest.mark.parametrize("decoder", DECODERS, ids=lambda decoder: type(decoder).__name__)
def test_every_parameter_and_every_level_gets_a_gradient(decoder: Decoder, encoder: Encoder) -> None:
    head, features = head_of(decoder, encoder).train(), [x.requires_grad_() for x in features_of(encoder)]
    head(features).square().mean().backward()
    assert all(x.grad is not None and x.grad.any() for x in (*features, *head.parameters()))


@pytest.mark.parametrize("decoder", DECODERS, ids=lambda decoder: type(decoder).__name__)
def test_parameters_are_used_only_where_their_module_is_called(decoder: Decoder) -> None:
    # ZeRO-3 has the parameters of a module gathered while it is called, and at no other time
    head, called = head_of(decoder), set()
    for module in head.modules():
        module.register_forward_pre_hook(lambda module, _: called.add(module))
    head(features_of(FOUR))
    assert all(module in called for module in head.modules() if list(module.parameters(recurse=False)))


@torch.no_grad()
@pytest.mark.parametrize("decoder", DECODERS, ids=lambda decoder: type(decoder).__name__)
def test_bf16_stays_close(decoder: Decoder) -> None:
    head, features = head_of(decoder), features_of(FOUR)
    exact = head(features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = head(features)
    assert torch.cosine_similarity(rough.float().flatten(), exact.flatten(), dim=0) > 0.999


@pytest.mark.parametrize(
    ("decoder", "options", "message"),
    [
        (HRNet, {"widths": [18, 0]}, r"decoder.widths=\[18, 0\] expansion=4: expected positive whole numbers"),
        (HRNet, {"widths": []}, r"decoder.widths=\[\] expansion=4: expected positive whole numbers"),
        (HRNet, {"expansion": 0}, "expansion=0: expected positive whole numbers"),
        (ASPP, {"widths": [18, 0]}, r"decoder.widths=\[18, 0\] rates=.*: expected positive whole numbers"),
        (ASPP, {"widths": []}, r"decoder.widths=\[\] rates=.*: expected positive whole numbers"),
        (ASPP, {"rates": [0]}, r"rates=\[0\]: expected positive whole numbers"),
        (ASPP, {"rates": []}, r"rates=\[\]: expected positive whole numbers"),
    ],
)
def test_widths_and_rates_that_cannot_be_are_refused(
    decoder: type[Decoder], options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        decoder(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 0}, "decoder.hidden=0: expected a positive number of channels"),
        ({"dropout": 1.0}, "decoder.dropout=1.0: expected a share from 0 to below 1"),
        ({"dropout": -0.1}, "decoder.dropout=-0.1: expected a share from 0 to below 1"),
    ],
)
def test_options_of_segformer_that_cannot_be_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Segformer(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("decoder", "name"), [(HRNet(), "hrnet"), (ASPP(), "aspp")])
def test_a_backbone_with_another_number_of_levels_is_refused(decoder: Decoder, name: str) -> None:
    with pytest.raises(ConfigError, match=f"decoder {name} has 4 widths but the backbone gives 2 levels; give"):
        decoder.build(Segmentation("semseg", 5), Levels(Level(8, 4), Level(16, 8)))


def test_levels_are_described_for_messages() -> None:
    assert describe(FOUR.levels[:2]) == "8 at 1/8, 16 at 1/16"
