"""SAM's encoder computes what segment_anything's does, at any size, without building the bias of its attention."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import pytest
import timm
import torch
from segment_anything import sam_model_registry
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from mt_backbones_sam.encoder import SamEncoder
from mt_backbones_sam.sam import Features, Sam, SamBase, SamHuge, SamLarge, SamNano, split
from mt_core.backbone import Encoder
from mt_core.errors import ConfigError
from mt_core.site import Role
from mt_core.testing import BackboneConformance

from .originals import SmallSam, WideSam, image_encoder, same_as

NAMED = {SamBase: "vit_b", SamLarge: "vit_l", SamHuge: "vit_h"}


def off(actual: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return float((actual - expected).abs().max() / expected.abs().max())


@torch.no_grad()
def difference_to_sam(backbone: Sam, size: int) -> float:
    original = image_encoder(backbone.overrides)
    images = torch.randn(2, 3, size, size)
    return off(same_as(original, backbone, (size, size))(images)[0], original(images))


@pytest.mark.parametrize("backbone", [SmallSam(), SamNano()], ids=["small", "nano"])
def test_unadapted_features_are_those_of_segment_anything(backbone: Sam) -> None:
    assert difference_to_sam(backbone, backbone.overrides["img_size"]) < 1e-5


def test_so_they_are_at_1024_pixels() -> None:
    assert difference_to_sam(WideSam(), 1024) < 1e-4


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("MT_EXHAUSTIVE") != "1", reason="set MT_EXHAUSTIVE=1: a minute for another width")
@torch.no_grad()
def test_so_are_those_of_vit_b_at_1024_pixels() -> None:
    options = {"img_size": 1024, "embed_dim": 768, "depth": 12, "num_heads": 12, "window_size": 14}
    original = image_encoder({**options, "global_attn_indexes": (2, 5, 8, 11)})
    images = torch.randn(1, 3, 1024, 1024)
    assert off(same_as(original, SamBase(), (1024, 1024))(images)[0], original(images)) < 1e-4


def timms(backbone: Sam) -> VisionTransformerSAM:
    """timm's own model, with the norms' epsilon that SAM has."""
    options = {"num_classes": 0, "norm_layer": partial(nn.LayerNorm, eps=1e-6), **backbone.overrides}
    model = timm.create_model(backbone.architecture, **options).eval()
    assert isinstance(model, VisionTransformerSAM)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


@pytest.mark.parametrize("size", [(128, 128), (96, 160), (160, 48), (256, 256), (16, 16)], ids=str)
@torch.no_grad()
def test_other_sizes_are_those_of_timm_whose_tables_are_resized(size: tuple[int, int]) -> None:
    backbone, model, images = SmallSam(), timms(SmallSam()), torch.randn(2, 3, *size)
    encoder = backbone.build(size)
    encoder.load_state_dict(split(model.state_dict())[0])
    expected: Tensor = model.forward_features(images)  # type: ignore[no-untyped-call]
    assert off(encoder(images)[0], expected) < 1e-5


@torch.no_grad()
def test_the_outputs_of_the_global_blocks_are_timms() -> None:
    model, images = timms(SamNano()), torch.randn(1, 3, 96, 64)
    state = {name: x for name, x in split(model.state_dict())[0].items() if not name.startswith("neck.")}
    encoder = SamNano(features=Features.blocks).build((96, 64))
    encoder.load_state_dict(state)
    expected = model.forward_intermediates(images, indices=[1, 3, 5, 7], intermediates_only=True)
    assert isinstance(expected, list)
    for level, wanted in zip(encoder(images), expected, strict=True):
        assert off(level, wanted) < 1e-5


@pytest.mark.parametrize(("backbone", "name"), NAMED.items(), ids=NAMED.values())
def test_each_name_is_the_model_of_that_name(backbone: type[Sam], name: str) -> None:
    with torch.device("meta"):
        encoder, original = backbone().build((512, 512)), sam_model_registry[name]()
    wanted, _ = split({f"image_encoder.{key}": x for key, x in original.image_encoder.state_dict().items()})
    assert {key: x.shape for key, x in encoder.state_dict().items()} == {key: x.shape for key, x in wanted.items()}
    assert encoder.get_submodule("blocks.0").norm1.eps == original.image_encoder.blocks[0].norm1.eps  # type: ignore[union-attr]
    windows = [block.attn.window for block in encoder.blocks]  # type: ignore[union-attr]
    assert windows == [block.window_size for block in original.image_encoder.blocks]
    assert_close(torch.tensor(encoder.mean) * 255, torch.tensor([123.675, 116.28, 103.53]))
    assert_close(torch.tensor(encoder.std) * 255, torch.tensor([58.395, 57.12, 57.375]))


def described(features: Features) -> tuple[SamEncoder, list[tuple[int, int]]]:
    with torch.device("meta"):
        encoder = SamLarge(features=features).build((512, 768))
    assert isinstance(encoder, SamEncoder)
    return encoder, [(level.channels, level.stride) for level in encoder.levels]


def test_with_the_neck_there_is_one_stage_and_one_level() -> None:
    encoder, levels = described(Features.neck)
    qkv = [site for site in encoder.sites() if site.role is Role.qkv]
    assert levels == [(256, 16)]
    assert {site.stage for site in qkv} == {0}
    assert [site.block for site in qkv if site.last] == [23]
    assert SamLarge().usual_decoder() == "sam_mask"


def test_with_the_blocks_there_are_four_stages_that_end_at_global_attention() -> None:
    encoder, levels = described(Features.blocks)
    qkv = [site for site in encoder.sites() if site.role is Role.qkv]
    assert levels == [(1024, 16)] * 4
    assert [site.stage for site in qkv] == [0] * 6 + [1] * 6 + [2] * 6 + [3] * 6
    assert [site.block for site in qkv if site.last] == [5, 11, 17, 23]
    assert [site.block for site in encoder.sites() if site.role is Role.tap] == [5, 11, 17, 23]
    assert not any(name.startswith("neck.") for name in encoder.state_dict())
    assert SamLarge(features=Features.blocks).usual_decoder() == ""


class Hierarchical(Sam):
    """A miniature that gives the outputs of its blocks."""

    @classmethod
    def miniature(cls) -> tuple[Encoder, Tensor]:
        tiny = VisionTransformerSAM(
            img_size=48, patch_size=8, embed_dim=16, depth=4, num_heads=2, use_rel_pos=True, window_size=4,
            global_attn_indexes=(0, 3), num_classes=0,
        )  # fmt: skip
        return SamEncoder(tiny, neck=False), torch.rand(2, 3, 48, 40)


class TestHierarchical(BackboneConformance):
    """With several taps, side streams leave at each."""

    entry: ClassVar[type[Sam]] = Hierarchical


class Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor that is made."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = result if isinstance(result, (tuple, list)) else [result]
        self.numel = max([self.numel, *(x.numel() for x in made if isinstance(x, Tensor))])
        return result


def test_global_attention_never_builds_a_bias_in_training() -> None:
    encoder, tokens, heads = WideSam().build((512, 512)), 32 * 32, 2
    with Largest() as largest:  # type: ignore[no-untyped-call]
        encoder.train()(torch.randn(1, 3, 512, 512))[0].square().mean().backward()
    assert largest.numel < heads * tokens**2 / 2


def test_position_tables_learn() -> None:
    encoder = SamNano().build((64, 96))
    encoder(torch.randn(1, 3, 64, 96))[0].square().mean().backward()
    tables = {name: p for name, p in encoder.named_parameters() if ".rel_pos." in name or name == "pos_embed"}
    assert len(tables) == 17
    assert all(p.grad is not None and p.grad.any() for p in tables.values())


def test_an_encoder_without_pretrained_weights_knows_of_positions() -> None:
    features = SamNano().build((256, 256))(torch.zeros(1, 3, 256, 256))[0]
    assert features.std(dim=(2, 3)).max() > 1e-3


@torch.no_grad()
def test_with_several_taps_it_compiles_as_one_graph() -> None:
    encoder, images = Hierarchical.miniature()
    torch._dynamo.reset()
    compiled: Callable[[Tensor], list[Tensor]] = torch.compile(encoder, fullgraph=True, backend="aot_eager")
    assert_close(compiled(images), encoder(images))


@torch.no_grad()
def test_bf16_stays_close() -> None:
    encoder, images = SamNano().build((192, 256)).eval(), torch.randn(1, 3, 192, 256)
    exact = encoder(images)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = encoder(images)[0]
    rougher = encoder.bfloat16()(images.bfloat16())[0]
    assert torch.cosine_similarity(rough.float().flatten(), exact.flatten(), dim=0) > 0.999
    assert torch.cosine_similarity(rougher.float().flatten(), exact.flatten(), dim=0) > 0.999


@pytest.mark.parametrize(("size", "nearest"), [((500, 512), "496, 512"), ((8, 40), "16, 32"), ((0, 16), "16, 16")])
def test_a_size_that_patches_do_not_fill_is_refused(size: tuple[int, int], nearest: str) -> None:
    with pytest.raises(ConfigError, match=rf"SAM needs multiples of its patch, 16; try \[{nearest}\]"):
        SamNano().build(size)


def test_so_is_such_a_picture_since_its_edge_would_be_lost() -> None:
    encoder = SamNano().build((64, 64))
    with pytest.raises(ConfigError, match=r"image_size=\[64, 70\]: SAM needs multiples of its patch"):
        encoder(torch.zeros(1, 3, 64, 70))


def test_the_small_one_has_no_pretrained_weights() -> None:
    with pytest.raises(ConfigError, match=r"sam_vit_nano has no pretrained weights; leave backbone.pretrained=false"):
        SamNano(pretrained=True)


def test_weights_come_from_one_place() -> None:
    with pytest.raises(ConfigError, match=r"backbone.pretrained and backbone.checkpoint exclude each other; give one"):
        SamBase(pretrained=True, checkpoint="sam.pth")
