"""Swin computes what timm's does, and takes weights in timm's layout and in that of the original files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import timm
import torch
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn
from torch.testing import assert_close

from mt_backbones_swin.encoder import SwinEncoder
from mt_backbones_swin.swin import FeaturePoint, Swin, SwinBase, SwinLarge, SwinNano, SwinSmall, SwinTiny
from mt_core.errors import CheckpointError, ConfigError
from mt_core.site import Role
from mt_core.weights import load_into

SIZES = [(224, 224), (96, 160), (160, 96), (32, 64), (72, 104), (70, 101)]
NAMED = {
    SwinTiny: (96, (2, 2, 6, 2), 28_000_000),
    SwinSmall: (96, (2, 2, 18, 2), 49_000_000),
    SwinBase: (128, (2, 2, 18, 2), 87_000_000),
    SwinLarge: (192, (2, 2, 18, 2), 195_000_000),
}


def timms(backbone: Swin, image_size: tuple[int, int], **more: Any) -> SwinTransformer:
    """timm's own model of a backbone, with position tables that are not near zero."""
    options = {"img_size": image_size, "num_classes": 0, **backbone.overrides, **more}
    model = cast(SwinTransformer, timm.create_model(backbone.architecture, **options)).eval()
    for name, parameter in model.named_parameters():
        if "table" in name:
            nn.init.normal_(parameter)
    return model


def same_as(model: SwinTransformer, backbone: Swin, image_size: tuple[int, int]) -> SwinEncoder:
    """Our encoder with the weights of timm's model."""
    encoder = backbone.build(image_size)
    assert isinstance(encoder, SwinEncoder)
    state = {name.replace("relative_position_bias_table", "bias.table"): x for name, x in model.state_dict().items()}
    load_into(encoder, {name: x for name, x in state.items() if not name.startswith("norm.")}, "timm's weights")
    return encoder.eval()


@torch.no_grad()
def expected(model: SwinTransformer, images: Tensor, point: FeaturePoint) -> list[Tensor]:
    """The levels by timm's own forward; and after the merging that timm has at the start of the next stage."""
    levels = cast(list[Tensor], model.forward_intermediates(images, intermediates_only=True))
    if point is FeaturePoint.before_merging:
        return levels
    merged = [
        cast(Any, stage).downsample(level.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        for stage, level in zip(list(model.layers)[1:], levels, strict=False)
    ]
    return [*merged, levels[-1]]


@pytest.mark.parametrize("point", FeaturePoint)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_unadapted_features_are_timms_own(size: tuple[int, int], point: FeaturePoint) -> None:
    backbone, images = SwinNano(features=point), torch.randn(2, 3, *size)
    model = timms(backbone, size)
    with torch.no_grad():
        features = same_as(model, backbone, size)(images)
    assert_close(features, expected(model, images, point), atol=1e-5, rtol=1e-5)


def test_so_are_those_of_swin_tiny() -> None:
    backbone, images = SwinTiny(features=FeaturePoint.before_merging), torch.randn(1, 3, 128, 192)
    model = timms(backbone, (128, 192))
    with torch.no_grad():
        features = same_as(model, backbone, (128, 192))(images)
    assert_close(features, expected(model, images, FeaturePoint.before_merging), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("point", "levels"),
    [
        (FeaturePoint.auto, [(192, 8), (384, 16), (768, 32), (768, 32)]),
        (FeaturePoint.after_merging, [(192, 8), (384, 16), (768, 32), (768, 32)]),
        (FeaturePoint.before_merging, [(96, 4), (192, 8), (384, 16), (768, 32)]),
    ],
)
def test_levels_promise_the_widths_of_the_papers(point: FeaturePoint, levels: list[tuple[int, int]]) -> None:
    with torch.device("meta"):
        encoder = SwinTiny(features=point).build((224, 224))
    assert [(level.channels, level.stride) for level in encoder.levels] == levels


@pytest.mark.parametrize(
    ("decoder", "point"),
    [
        ("segformer", FeaturePoint.before_merging),
        ("hrnet", FeaturePoint.after_merging),
        ("mine", FeaturePoint.after_merging),
    ],
)
def test_auto_takes_the_features_where_the_papers_of_a_decoder_do(decoder: str, point: FeaturePoint) -> None:
    assert SwinTiny(drop_path=0.1).settled(decoder) == SwinTiny(drop_path=0.1, features=point)


@pytest.mark.parametrize("point", [FeaturePoint.before_merging, FeaturePoint.after_merging])
@pytest.mark.parametrize("decoder", ["segformer", "hrnet"])
def test_features_that_were_asked_for_are_kept_whatever_the_decoder(decoder: str, point: FeaturePoint) -> None:
    assert SwinTiny(features=point).settled(decoder) == SwinTiny(features=point)


@pytest.mark.parametrize(("backbone", "expected_"), NAMED.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_each_name_is_the_architecture_of_the_paper(
    backbone: type[Swin], expected_: tuple[int, tuple[int, ...], int]
) -> None:
    width, depths, parameters = expected_
    with torch.device("meta"):
        encoder = backbone().build((224, 224))
    blocks = [site.path for site in encoder.sites() if site.role is Role.qkv]
    assert tuple(sum(f"layers.{i}." in path for path in blocks) for i in range(4)) == depths
    assert encoder.get_submodule("layers.0.blocks.0.attn.qkv").in_features == width
    assert sum(p.numel() for p in encoder.parameters()) == pytest.approx(parameters, rel=0.02)


def test_sites_number_the_blocks_and_know_the_last_of_each_stage() -> None:
    with torch.device("meta"):
        sites = SwinTiny().build((224, 224)).sites()
    qkv = [site for site in sites if site.role is Role.qkv]
    assert [site.block for site in qkv] == list(range(12))
    assert [site.block for site in qkv if site.last] == [1, 3, 9, 11]
    assert [site.stage for site in qkv] == [0] * 2 + [1] * 2 + [2] * 6 + [3] * 2


def test_stochastic_depth_grows_with_depth_and_only_trains() -> None:
    encoder = SwinNano(drop_path=0.5).build((32, 32))
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for stage in encoder.layers for block in stage.blocks]  # type: ignore[union-attr]
    assert rates == sorted(rates)
    assert (rates[0], rates[-1]) == (0.0, 0.5)
    images = torch.rand(4, 3, 32, 32)
    assert not torch.equal(encoder.train()(images)[-1], encoder(images)[-1])
    assert torch.equal(encoder.eval()(images)[-1], encoder(images)[-1])


# --------------------------------------------------------------------------------------------- checkpoints


def original_layout(width: int, depths: tuple[int, ...], heads: tuple[int, ...], window: int = 7) -> dict[str, Tensor]:
    """Random values under the names and shapes of the files that the authors published (for 224 x 224)."""
    area, places = window**2, (2 * window - 1) ** 2
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embed.proj.weight": (width, 3, 4, 4),
        **_vectors("patch_embed.proj", width, "bias"),
        **_vectors("patch_embed.norm", width),
        **_vectors("norm", 8 * width),
        "head.weight": (1000, 8 * width),
        **_vectors("head", 1000, "bias"),
    }
    buffers: dict[str, Tensor] = {}
    for i, depth in enumerate(depths):
        c = width * 2**i
        for j in range(depth):
            block = f"layers.{i}.blocks.{j}"
            shapes |= {**_vectors(f"{block}.norm1", c), **_vectors(f"{block}.norm2", c)}
            shapes[f"{block}.attn.relative_position_bias_table"] = (places, heads[i])
            for name, (rows, columns) in {
                "attn.qkv": (3 * c, c), "attn.proj": (c, c), "mlp.fc1": (4 * c, c), "mlp.fc2": (c, 4 * c),
            }.items():  # fmt: skip
                shapes |= {f"{block}.{name}.weight": (rows, columns), f"{block}.{name}.bias": (rows,)}
            buffers[f"{block}.attn.relative_position_index"] = torch.randint(places, (area, area))
            if j % 2 and i < 3:
                buffers[f"{block}.attn_mask"] = torch.zeros((56 // 2**i // window) ** 2, area, area)
        if i < 3:
            shapes[f"layers.{i}.downsample.reduction.weight"] = (2 * c, 4 * c)
            shapes |= _vectors(f"layers.{i}.downsample.norm", 4 * c)
    return {name: torch.randn(shape) for name, shape in shapes.items()} | buffers


def _vectors(module: str, width: int, *names: str) -> dict[str, tuple[int, ...]]:
    return {f"{module}.{name}": (width,) for name in names or ("weight", "bias")}


def ours(name: str) -> str:
    """Where a tensor of the original layout belongs: its downsampling ends a stage, ours begins the next."""
    for stage in (2, 1, 0):
        name = name.replace(f"layers.{stage}.downsample", f"layers.{stage + 1}.downsample")
    return name.replace("relative_position_bias_table", "bias.table")


def is_used(name: str) -> bool:
    return not name.startswith(("norm.", "head.")) and not name.endswith(("relative_position_index", "attn_mask"))


def load(backbone: Swin, image_size: tuple[int, int] = (224, 224)) -> Mapping[str, Tensor]:
    encoder = backbone.build(image_size)
    state = backbone.pretrained_state(encoder)
    assert state is not None
    load_into(encoder, state, f"checkpoint {backbone.checkpoint}")
    return encoder.state_dict()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_every_value_of_an_original_file_arrives(tmp_path: Path, suffix: str) -> None:
    state = original_layout(32, (2, 2, 2, 2), (2, 4, 8, 16))
    path = tmp_path / f"swin{suffix}"
    if suffix == ".pth":
        torch.save({"model": state}, path)
    else:
        import safetensors.torch

        safetensors.torch.save_file(state, path)
    loaded = load(SwinNano(checkpoint=str(path)))
    wanted = {ours(name): value for name, value in state.items() if is_used(name)}
    assert loaded.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.equal(loaded[name], value), name


def test_so_does_every_value_of_the_file_of_swin_tiny(tmp_path: Path) -> None:
    state = original_layout(96, (2, 2, 6, 2), (3, 6, 12, 24))
    torch.save({"model": state}, tmp_path / "swin_tiny_patch4_window7_224.pth")
    loaded = load(SwinTiny(checkpoint=str(tmp_path / "swin_tiny_patch4_window7_224.pth")))
    assert all(torch.equal(loaded[ours(name)], value) for name, value in state.items() if is_used(name))


@pytest.mark.parametrize("classes", [0, 10], ids=["without a head", "with a head"])
def test_every_value_of_a_timm_file_arrives(tmp_path: Path, classes: int) -> None:
    model = timms(SwinNano(), (224, 224), num_classes=classes)
    torch.save(model.state_dict(), tmp_path / "timm.pth")
    loaded = load(SwinNano(checkpoint=str(tmp_path / "timm.pth")))
    expected_ = same_as(timms(SwinNano(), (224, 224)), SwinNano(), (224, 224)).state_dict()
    assert loaded.keys() == expected_.keys()
    values = {name.replace("relative_position_bias_table", "bias.table"): x for name, x in model.state_dict().items()}
    assert all(torch.equal(value, values[name]) for name, value in loaded.items())


def test_a_merged_state_goes_back_under_timms_names() -> None:
    model = timms(SwinNano(), (64, 96))
    encoder = same_as(model, SwinNano(), (64, 96))
    state = model.state_dict()
    original = encoder.original(encoder.state_dict())
    assert original.keys() == {name for name in state if not name.startswith("norm.")}
    assert all(torch.equal(value, state[name]) for name, value in original.items())


def test_position_tables_are_resized_to_the_windows_of_another_size(tmp_path: Path) -> None:
    state = original_layout(32, (2, 2, 2, 2), (2, 4, 8, 16))
    for name in state:
        if name.endswith("table"):
            state[name] = torch.arange(1.0, 1 + state[name].shape[1]).expand_as(state[name]).clone()  # one value a head
    torch.save({"model": state}, tmp_path / "swin.pth")
    loaded = load(SwinNano(checkpoint=str(tmp_path / "swin.pth")), (64, 96))
    table = loaded["layers.3.blocks.1.attn.bias.table"]
    assert table.shape == (3 * 5, 16), "the last stage is one window of 2 x 3 patches"
    assert_close(table, torch.arange(1.0, 17).expand_as(table))
    assert loaded["layers.0.blocks.0.attn.bias.table"].shape == (13 * 13, 2)


WRONG = {
    "too deep": original_layout(32, (2, 2, 4, 2), (2, 4, 8, 16)),
    "too wide": original_layout(48, (2, 2, 2, 2), (3, 6, 12, 24)),
    "another model": {"conv1.weight": torch.zeros(64, 3, 7, 7), "fc.bias": torch.zeros(10)},
}


@pytest.mark.parametrize("state", WRONG.values(), ids=WRONG)
def test_a_file_for_another_model_is_refused(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save({"model": state}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other.pth does not fit .*is it for another backbone"):
        load(SwinNano(checkpoint=str(tmp_path / "other.pth")))


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "swin.pth"
    torch.save({"model": original_layout(32, (2, 2, 2, 2), (2, 4, 8, 16))}, path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"swin.pth \(\d+ bytes\) cannot be read, it is truncated"):
        load(SwinNano(checkpoint=str(path)))


class Configuration:
    """What a training script may have pickled beside its weights."""


def test_a_file_with_pickled_code_is_refused(tmp_path: Path) -> None:
    torch.save({"model": {}, "config": Configuration()}, tmp_path / "swin.pth")
    with pytest.raises(CheckpointError, match=r"swin.pth: refused, it holds more than tensors .*Configuration"):
        load(SwinNano(checkpoint=str(tmp_path / "swin.pth")))


def test_without_a_network_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def unreachable(*arguments: Any, pretrained: bool = False, **options: Any) -> Any:
        if pretrained:
            raise OSError("no route to host")
        return create(*arguments, **options)

    monkeypatch.setattr(timm, "create_model", unreachable)
    backbone = SwinTiny(pretrained=True)
    with torch.device("meta"):
        encoder = backbone.build((224, 224))
    with pytest.raises(
        CheckpointError, match=r"swin_tiny_\w+ cannot be fetched \(OSError\); .* backbone.checkpoint=FILE"
    ):
        backbone.pretrained_state(encoder)


# ------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_a_rate_of_stochastic_depth_is_a_probability(rate: float) -> None:
    with pytest.raises(ConfigError, match=rf"backbone.drop_path={rate}: expected a probability below 1"):
        SwinTiny(drop_path=rate)


def test_weights_come_from_one_place() -> None:
    with pytest.raises(ConfigError, match=r"backbone.pretrained and backbone.checkpoint exclude each other; give one"):
        SwinTiny(pretrained=True, checkpoint="swin.pth")


def test_the_small_one_has_no_pretrained_weights() -> None:
    with pytest.raises(ConfigError, match=r"swin_nano has no pretrained weights; leave backbone.pretrained=false"):
        SwinNano(pretrained=True)


def test_a_picture_must_reach_the_last_level() -> None:
    with pytest.raises(ConfigError, match=r"image_size=\[31, 64\]: Swin needs at least 32 pixels a side"):
        SwinNano().build((31, 64))


def test_weights_that_are_not_asked_for_are_none() -> None:
    backbone = SwinNano()
    assert backbone.pretrained_state(backbone.build((32, 32))) is None
