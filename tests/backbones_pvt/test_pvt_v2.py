"""PVT v2 computes what timm's does, and takes weights in timm's layout and in that of the authors' files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import pytest
import timm
import torch
from timm.models.pvt_v2 import PyramidVisionTransformerV2
from torch import Tensor
from torch.testing import assert_close

from mt_backbones_pvt.encoder import PvtEncoder
from mt_backbones_pvt.pvt_v2 import PvtV2, PvtV2B0, PvtV2B1, PvtV2B2, PvtV2B3, PvtV2B4, PvtV2B5
from mt_core.errors import CheckpointError, ConfigError
from mt_core.site import Role
from mt_core.weights import load_into

from .layouts import authors_v2

SIZES = [(224, 224), (96, 160), (32, 64), (70, 101)]
B0 = ((32, 64, 160, 256), (2, 2, 2, 2), (8, 8, 4, 4), (8, 4, 2, 1))
B1 = ((64, 128, 320, 512), *B0[1:])
NAMED = {  # the paper's Table 1: parameters with a classifier of 1000 classes
    PvtV2B0: ((2, 2, 2, 2), 3_700_000),
    PvtV2B1: ((2, 2, 2, 2), 14_000_000),
    PvtV2B2: ((3, 4, 6, 3), 25_400_000),
    PvtV2B3: ((3, 4, 18, 3), 45_200_000),
    PvtV2B4: ((3, 8, 27, 3), 62_600_000),
    PvtV2B5: ((3, 6, 40, 3), 82_000_000),
}


def timms(backbone: PvtV2, **more: Any) -> PyramidVisionTransformerV2:
    """timm's own model of a backbone, with biases that are not zero."""
    model = cast(PyramidVisionTransformerV2, timm.create_model(backbone.architecture, **{"num_classes": 0, **more}))
    for parameter in model.requires_grad_(False).parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return model.eval()


def load(backbone: PvtV2, image_size: tuple[int, int] = (224, 224)) -> PvtEncoder:
    encoder = cast(PvtEncoder, backbone.build(image_size))
    state = backbone.pretrained_state(encoder)
    assert state is not None
    load_into(encoder, state, f"checkpoint {backbone.checkpoint}")
    return encoder.eval().requires_grad_(False)


def ours(name: str) -> str:
    """Where a tensor of timm's or the authors' layout belongs."""
    name = re.sub(r"^stages\.(\d)\.downsample", r"stages.\1.patch_embed", name)
    name = re.sub(r"^patch_embed\.", "stages.0.patch_embed.", name)
    name = re.sub(r"^(patch_embed|norm)(\d)", lambda m: f"stages.{int(m[2]) - 1}.{m[1]}", name)
    name = re.sub(r"^block(\d)", lambda m: f"stages.{int(m[1]) - 1}.blocks", name)
    return name.replace("dwconv.dwconv", "dwconv")


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_unadapted_features_are_timms_own(size: tuple[int, int], tmp_path: Path) -> None:
    model, images = timms(PvtV2B0()), torch.randn(2, 3, *size)
    torch.save(model.state_dict(), tmp_path / "timm.pth")
    features = load(PvtV2B0(checkpoint=str(tmp_path / "timm.pth")), size)(images)
    assert_close(features, model.forward_intermediates(images, intermediates_only=True), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("backbone", "paper"), NAMED.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_each_name_is_the_architecture_of_the_paper(backbone: type[PvtV2], paper: tuple[tuple[int, ...], int]) -> None:
    depths, parameters = paper
    with torch.device("meta"):
        encoder = backbone().build((224, 224))
    blocks = [site for site in encoder.sites() if site.role is Role.q]
    assert tuple(sum(site.stage == i for site in blocks) for i in range(4)) == depths
    classifier = (encoder.levels[-1].channels + 1) * 1000
    assert sum(p.numel() for p in encoder.parameters()) + classifier == pytest.approx(parameters, rel=0.02)


def test_stochastic_depth_grows_with_depth() -> None:
    encoder = cast(Any, PvtV2B0(drop_path=0.7).build((32, 32)))
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for stage in encoder.stages for block in stage.blocks]
    assert rates == pytest.approx([i / 10 for i in range(8)])


@pytest.mark.parametrize(("backbone", "shape"), [(PvtV2B0, B0), (PvtV2B1, B1)], ids=["b0", "b1"])
def test_every_value_of_a_file_of_the_authors_arrives(tmp_path: Path, backbone: type[PvtV2], shape: Any) -> None:
    state = authors_v2(*shape)
    torch.save(state, tmp_path / "pvt_v2.pth")
    loaded = load(backbone(checkpoint=str(tmp_path / "pvt_v2.pth"))).state_dict()
    wanted = {ours(name): value for name, value in state.items() if not name.startswith("head.")}
    assert loaded.keys() == wanted.keys()
    assert all(torch.equal(loaded[name], value) for name, value in wanted.items())


@pytest.mark.parametrize("classes", [0, 10], ids=["without a head", "with a head"])
def test_so_does_every_value_of_a_timm_file_and_goes_back_to_it(tmp_path: Path, classes: int) -> None:
    state = timms(PvtV2B0(), num_classes=classes).state_dict()
    torch.save(state, tmp_path / "timm.pth")
    encoder = load(PvtV2B0(checkpoint=str(tmp_path / "timm.pth")))
    wanted = {name: value for name, value in state.items() if not name.startswith("head.")}
    loaded, original = encoder.state_dict(), encoder.original(encoder.state_dict())
    assert loaded.keys() == {ours(name) for name in wanted}
    assert original.keys() == wanted.keys()
    assert all(torch.equal(original[name], value) for name, value in wanted.items())
    assert all(torch.equal(loaded[ours(name)], value) for name, value in wanted.items())


def test_a_file_for_another_one_is_refused(tmp_path: Path) -> None:
    torch.save(authors_v2(B0[0], (2, 2, 3, 2), *B0[2:]), tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other.pth does not fit .*is it for another backbone"):
        load(PvtV2B0(checkpoint=str(tmp_path / "other.pth")))


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pvt_v2_b0.pth"
    torch.save(authors_v2(*B0), path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"pvt_v2_b0.pth \(\d+ bytes\) cannot be read, it is truncated"):
        load(PvtV2B0(checkpoint=str(path)))


def test_without_a_network_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def unreachable(*arguments: Any, pretrained: bool = False, **options: Any) -> Any:
        if pretrained:
            raise OSError("no route to host")
        return create(*arguments, **options)

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(
        CheckpointError, match=r"weights of pvt_v2_b0 cannot be fetched \(OSError\); .* backbone.checkpoint=FILE"
    ):
        load(PvtV2B0(pretrained=True))


def test_pretrained_weights_are_timms(monkeypatch: pytest.MonkeyPatch) -> None:
    model, create, asked = timms(PvtV2B0()), timm.create_model, list[str]()

    def pretrained(name: str, *, pretrained: bool = False, **options: Any) -> Any:
        if not pretrained:
            return create(name, **options)
        asked.append(name)
        return model

    monkeypatch.setattr(timm, "create_model", pretrained)
    loaded: dict[str, Tensor] = load(PvtV2B0(pretrained=True)).state_dict()
    assert asked == ["pvt_v2_b0"]
    assert all(torch.equal(loaded[ours(name)], value) for name, value in model.state_dict().items())


def test_a_picture_must_reach_the_last_level() -> None:
    with pytest.raises(ConfigError, match=r"image_size=\[31, 64\]: PVT v2 needs at least 32 pixels a side"):
        PvtV2B0().build((31, 64))
    with pytest.raises(ConfigError, match=r"image_size=\[64, 24\]: PVT v2 needs at least 32 pixels a side"):
        PvtV2B0().build((64, 64))(torch.rand(1, 3, 64, 24))
