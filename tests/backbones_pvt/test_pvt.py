"""PVT v1 computes what transformers' does, and takes weights in the authors' layout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from mt_backbones_pvt.encoder import PositionEmbedding, PvtEncoder
from mt_backbones_pvt.pvt import Pvt, PvtLarge, PvtMedium, PvtNano, PvtSmall, PvtTiny
from mt_core.errors import CheckpointError, ConfigError
from mt_core.site import Role
from mt_core.weights import load_into

from .layouts import authors_v1

NANO = ((32, 64, 128, 256), (2, 2, 2, 2), (4, 4, 4, 4), (8, 4, 2, 1))
TINY = ((64, 128, 320, 512), (2, 2, 2, 2), (8, 8, 4, 4), (8, 4, 2, 1))
NAMED = {  # the paper's Table 2, without its classifier of 0.5 million
    PvtTiny: ((2, 2, 2, 2), 12_700_000),
    PvtSmall: ((3, 4, 6, 3), 24_000_000),
    PvtMedium: ((3, 4, 18, 3), 43_700_000),
    PvtLarge: ((3, 8, 27, 3), 60_900_000),
}
THEIRS = {  # transformers' names and the authors'
    "projection": "proj", "attention.self.query": "attn.q", "attention.self.sequence_reduction": "attn.sr",
    "attention.self.layer_norm": "attn.norm", "attention.output.dense": "attn.proj", "layer_norm_1": "norm1",
    "layer_norm_2": "norm2", "layer_norm": "norm", "mlp.dense1": "mlp.fc1", "mlp.dense2": "mlp.fc2",
    "position_embeddings": "", "cls_token": "cls_token",
}  # fmt: skip


def transformers_model(backbone: Pvt) -> Any:
    """transformers' model, every value drawn at random, with the epsilons of the authors' code."""
    transformers = pytest.importorskip("transformers", reason="the reference for PVT v1 is transformers' PvtModel")
    shape = backbone.shape
    config = transformers.PvtConfig(
        depths=list(shape.depths), hidden_sizes=list(shape.widths), num_attention_heads=list(shape.heads),
        mlp_ratios=list(shape.ratios), sequence_reduction_ratios=list(shape.reductions),
    )  # fmt: skip
    model = transformers.PvtModel(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.05)
    for name, module in model.named_modules():
        if name.endswith(".layer_norm") and ("patch_embeddings" in name or ".self." in name):
            module.eps = 1e-5
    return model.double()  # values that float32 holds, so that no rounding on the way hides a difference


def as_authors(model: Any) -> dict[str, Tensor]:
    """The weights of transformers' model as the authors would have stored them."""
    state: dict[str, Tensor] = {}
    for name, value in model.encoder.state_dict().items():
        part, _, rest = name.partition(".")
        number, _, rest = rest.partition(".")
        if part == "layer_norm":
            state[f"norm.{number}"] = value
        elif part == "patch_embeddings":
            module, _, kind = rest.rpartition(".") if "." in rest else (rest, "", "")
            stem = {"position_embeddings": f"pos_embed{int(number) + 1}", "cls_token": "cls_token"}.get(module)
            state[stem or f"patch_embed{int(number) + 1}.{THEIRS[module]}.{kind}"] = value
        elif ".self.value" not in rest:
            block, _, rest = rest.partition(".")
            module, _, kind = rest.rpartition(".")
            if ".self.key" in rest:
                values = model.encoder.state_dict()[name.replace(".key.", ".value.")]
                state[f"block{int(number) + 1}.{block}.attn.kv.{kind}"] = torch.cat([value, values])
            else:
                state[f"block{int(number) + 1}.{block}.{THEIRS[module]}.{kind}"] = value
    return state


def without_class_token(model: Any) -> Any:
    last = model.encoder.patch_embeddings[-1]
    last.cls_token, last.position_embeddings = None, nn.Parameter(last.position_embeddings[:, 1:])
    return model


def levels(model: Any, images: Tensor) -> list[Tensor]:
    """What transformers' model has at the end of each stage, as maps."""
    states = model(images, output_hidden_states=True).hidden_states
    ends = torch.tensor(model.config.depths).cumsum(0).tolist()
    height, width = images.shape[-2:]
    return [
        states[end - 1].transpose(1, 2).unflatten(2, (height // stride, width // stride))
        for end, stride in zip(ends, (4, 8, 16, 32), strict=True)
    ]


def load(backbone: Pvt, image_size: tuple[int, int] = (224, 224)) -> PvtEncoder:
    encoder = cast(PvtEncoder, backbone.build(image_size))
    state = backbone.pretrained_state(encoder)
    assert state is not None
    load_into(encoder, state, f"checkpoint {backbone.checkpoint}")
    return encoder.eval().requires_grad_(False)


def stored(state: Mapping[str, Tensor], path: Path) -> str:
    torch.save(dict(state), path)
    return str(path)


@pytest.mark.parametrize("cls", [PvtNano, PvtTiny])
def test_unadapted_features_are_those_of_transformers(cls: type[Pvt], tmp_path: Path) -> None:
    model = transformers_model(cls())
    encoder = load(cls(checkpoint=stored(as_authors(model), tmp_path / "pvt.pth"))).double()
    images = torch.randn(1, 3, 224, 224, dtype=torch.float64)
    assert_close(encoder(images), levels(without_class_token(model), images), atol=1e-9, rtol=1e-9)


def test_the_class_token_touches_nothing_but_the_last_level(tmp_path: Path) -> None:
    model, images = transformers_model(PvtNano()), torch.randn(1, 3, 224, 224, dtype=torch.float64)
    encoder = load(PvtNano(checkpoint=stored(as_authors(model), tmp_path / "pvt.pth"))).double()
    whole = model(images, output_hidden_states=True).hidden_states
    for level, states in zip(encoder(images)[:3], whole[1:6:2], strict=True):
        assert_close(level.flatten(2).transpose(1, 2), states, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("size", [(96, 160), (64, 32)], ids=str)
def test_on_other_sizes_tables_are_resized_as_the_authors_do(size: tuple[int, int], tmp_path: Path) -> None:
    model = transformers_model(PvtNano())
    encoder = load(PvtNano(checkpoint=stored(as_authors(model), tmp_path / "pvt.pth")), size).double()
    for i, embedding in enumerate(without_class_token(model).encoder.patch_embeddings):
        side, step = 56 // 2**i, 4 * 2**i
        table = embedding.position_embeddings.view(1, side, side, -1).permute(0, 3, 1, 2)
        table = F.interpolate(table, size=(size[0] // step, size[1] // step), mode="bilinear")
        embedding.position_embeddings = nn.Parameter(table.flatten(2).transpose(1, 2))
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    assert_close(encoder(images), levels(model, images), atol=1e-9, rtol=1e-9)


def test_a_table_keeps_rows_and_columns_apart() -> None:
    positions = PositionEmbedding((3, 4), 2)
    with torch.no_grad():
        rows, columns = torch.meshgrid(torch.arange(3.0), torch.arange(4.0), indexing="ij")
        positions.table.copy_(torch.stack([rows, columns], dim=-1).flatten(0, 1))
        same, larger = positions(torch.zeros(1, 3, 4, 2)), positions(torch.zeros(1, 6, 12, 2))
    assert torch.equal(same[0], torch.stack([rows, columns], dim=-1))
    assert_close(larger[0, :, 0, 0], torch.tensor([0, 0.25, 0.75, 1.25, 1.75, 2]))
    assert_close(larger[0, :, :, 0], larger[0, :, :1, 0].expand(6, 12))
    assert_close(larger[0, :, :, 1], larger[0, :1, :, 1].expand(6, 12))


@pytest.mark.parametrize(("backbone", "paper"), NAMED.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_each_name_is_the_architecture_of_the_paper(backbone: type[Pvt], paper: tuple[tuple[int, ...], int]) -> None:
    depths, parameters = paper
    with torch.device("meta"):
        encoder = backbone().build((224, 224))
    blocks = [site for site in encoder.sites() if site.role is Role.q]
    assert tuple(sum(site.stage == i for site in blocks) for i in range(4)) == depths
    assert [(level.channels, level.stride) for level in encoder.levels] == [(64, 4), (128, 8), (320, 16), (512, 32)]
    assert sum(p.numel() for p in encoder.parameters()) == pytest.approx(parameters, rel=0.01)


def test_queries_and_keys_read_what_they_are_computed_from() -> None:
    sites = {site.path: site for site in PvtNano().build((32, 32)).sites()}
    for stage, reduces in enumerate([True, True, True, False]):
        block = f"stages.{stage}.blocks.1"
        assert (f"{block}.attn.norm" in sites) == reduces
        assert sites[f"{block}.attn.kv"].reads == (None if reduces else f"{block}.norm1")
        assert sites[f"{block}.attn.join"].reads == f"{block}.attn.q"
        assert [(s.last, s.block) for s in sites.values() if s.path.startswith(f"{block}.")] == [
            (True, 2 * stage + 1)
        ] * sum(path.startswith(f"{block}.") for path in sites)


def test_stochastic_depth_grows_with_depth_and_only_trains() -> None:
    encoder = cast(Any, PvtNano(drop_path=0.7).build((32, 32)))
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for stage in encoder.stages for block in stage.blocks]
    assert rates == pytest.approx([i / 10 for i in range(8)])
    images = torch.rand(4, 3, 32, 32)
    assert not torch.equal(encoder.train()(images)[-1], encoder(images)[-1])
    assert torch.equal(encoder.eval()(images)[-1], encoder(images)[-1])


# --------------------------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", "nested"])
def test_every_value_of_a_file_of_the_authors_arrives(tmp_path: Path, suffix: str) -> None:
    state, path = authors_v1(*NANO), tmp_path / f"pvt{suffix}"
    if suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save({"model": state} if suffix == "nested" else state, path)
    _arrived(load(PvtNano(checkpoint=str(path))).state_dict(), state)


def test_so_does_every_value_of_the_file_of_pvt_tiny(tmp_path: Path) -> None:
    state = authors_v1(*TINY)
    _arrived(load(PvtTiny(checkpoint=stored(state, tmp_path / "pvt_tiny.pth"))).state_dict(), state)


def _arrived(loaded: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Every value of `state` that dense prediction uses is in `loaded`, which holds nothing else."""
    wanted = {}
    for name, value in state.items():
        for i in range(4):
            name = name.replace(f"patch_embed{i + 1}", f"stages.{i}.patch_embed")
            name = name.replace(f"block{i + 1}", f"stages.{i}.blocks")
            name = name.replace(f"pos_embed{i + 1}", f"stages.{i}.pos_embed.table")
        wanted[name] = value[:, 1:] if name == "stages.3.pos_embed.table" else value
    for name in ("cls_token", "norm.weight", "norm.bias", "head.weight", "head.bias"):
        del wanted[name]
    assert loaded.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.equal(loaded[name], value), name


def test_a_merged_state_goes_back_to_the_authors_layout_and_can_be_loaded_again(tmp_path: Path) -> None:
    state = authors_v1(*NANO)
    encoder = load(PvtNano(checkpoint=stored(state, tmp_path / "pvt.pth")))
    original = encoder.original(encoder.state_dict())
    assert original.keys() == {name for name in state if not name.startswith(("norm.", "head.", "cls_token"))}
    state["pos_embed4"][:, 0] = 0  # the place of the class token, which is not there
    assert all(torch.equal(value, state[name]) for name, value in original.items())
    again = load(PvtNano(checkpoint=stored(original, tmp_path / "merged.pth"))).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in encoder.state_dict().items())


WRONG = {
    "too deep": authors_v1(NANO[0], (2, 2, 4, 2), *NANO[2:]),
    "too wide": authors_v1((64, 128, 160, 256), *NANO[1:]),
    "for other pictures": authors_v1(*NANO, side=384),
    "another model": {"conv1.weight": torch.zeros(64, 3, 7, 7), "pos_embed4": torch.zeros(10)},
}


@pytest.mark.parametrize("state", WRONG.values(), ids=WRONG)
def test_a_file_for_another_model_is_refused(tmp_path: Path, state: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointError, match=r"other.pth does not fit .*is it for another backbone"):
        load(PvtNano(checkpoint=stored(state, tmp_path / "other.pth")))


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = Path(stored(authors_v1(*NANO), tmp_path / "pvt.pth"))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"pvt.pth \(\d+ bytes\) cannot be read, it is truncated"):
        load(PvtNano(checkpoint=str(path)))


class Configuration:
    """What a training script may have pickled beside its weights."""


def test_a_file_with_pickled_code_is_refused(tmp_path: Path) -> None:
    torch.save({"model": {}, "config": Configuration()}, tmp_path / "pvt.pth")
    with pytest.raises(CheckpointError, match=r"pvt.pth: refused, it holds more than tensors .*Configuration"):
        load(PvtNano(checkpoint=str(tmp_path / "pvt.pth")))


@pytest.mark.parametrize("nested", [False, True], ids=["plain", "nested"])
def test_pretrained_weights_come_from_the_authors_release(monkeypatch: pytest.MonkeyPatch, nested: bool) -> None:
    state, asked = authors_v1(*TINY), list[tuple[str, Any]]()

    def fetch(url: str, **options: Any) -> Mapping[str, Any]:
        asked.append((url, options["weights_only"]))
        return {"model": state} if nested else state

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fetch)
    _arrived(load(PvtTiny(pretrained=True)).state_dict(), state)
    assert asked == [("https://github.com/whai362/PVT/releases/download/v2/pvt_tiny.pth", True)]


def test_without_a_network_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> Any:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", unreachable)
    with pytest.raises(
        CheckpointError, match=r"weights of pvt_tiny cannot be fetched \(OSError\); .* backbone.checkpoint=FILE"
    ):
        load(PvtTiny(pretrained=True))


# ------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_a_rate_of_stochastic_depth_is_a_probability(rate: float) -> None:
    with pytest.raises(ConfigError, match=rf"backbone.drop_path={rate}: expected a probability below 1"):
        PvtTiny(drop_path=rate)


def test_weights_come_from_one_place() -> None:
    with pytest.raises(ConfigError, match=r"backbone.pretrained and backbone.checkpoint exclude each other; give one"):
        PvtTiny(pretrained=True, checkpoint="pvt_tiny.pth")


def test_the_small_one_has_no_pretrained_weights() -> None:
    with pytest.raises(ConfigError, match=r"pvt_nano has no pretrained weights; leave backbone.pretrained=false"):
        PvtNano(pretrained=True)


def test_a_picture_that_patches_do_not_fill_is_refused_with_the_nearest_that_they_do() -> None:
    with pytest.raises(ConfigError, match=r"image_size=\[20, 110\]: PVT v1 needs multiples of 32; try \[32, 96\]"):
        PvtNano().build((20, 110))
    with pytest.raises(ConfigError, match=r"image_size=\[32, 33\]: PVT v1 needs multiples of 32"):
        PvtNano().build((32, 32))(torch.rand(1, 3, 32, 33))


def test_weights_that_are_not_asked_for_are_none() -> None:
    backbone = PvtNano()
    assert backbone.pretrained_state(backbone.build((32, 32))) is None
