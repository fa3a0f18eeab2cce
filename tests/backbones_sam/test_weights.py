"""Weights in SAM's own layout reach the encoder and the mask decoders whole; a wrong file is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from mt_backbones_sam.encoder import SamEncoder
from mt_backbones_sam.sam import Features, Sam, SamBase, SamNano, split
from mt_backbones_sam.sam_mask import SamMask, SamMaskHead
from mt_core.artefact import load_artefact, save
from mt_core.build import Built, Entry, ModelSpec, build
from mt_core.errors import CheckpointError
from mt_core.tasks import Depth, Segmentation
from mt_core.weights import load_into

from .originals import SmallSam, whole

TASKS = (Segmentation("semseg", 5), Depth("depth"))
NO_MASK, FREQUENCIES = "no_mask_embed.weight", "pe_layer.positional_encoding_gaussian_matrix"


def official(options: Mapping[str, Any] = SamNano.overrides) -> dict[str, Tensor]:
    """The names and shapes of the published files, with every value drawn at random."""
    return {name: torch.randn_like(x) for name, x in whole(options).state_dict().items()}


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return official()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, state: dict[str, Tensor]) -> Path:
    file = tmp_path_factory.mktemp("weights") / "sam_vit_nano.pth"
    torch.save(state, file)
    return file


def ours(name: str) -> str:
    """The name that a tensor of the image encoder has in ours."""
    return name.removeprefix("image_encoder.").replace("mlp.lin", "mlp.fc").replace("rel_pos_", "rel_pos.")


def load(backbone: Sam) -> SamEncoder:
    """The encoder with its checkpoint, loaded as `mt_core.build` does."""
    encoder = backbone.build((64, 96))
    found = backbone.pretrained_state(encoder)
    assert found is not None
    load_into(encoder, found, f"checkpoint {backbone.checkpoint}")
    assert isinstance(encoder, SamEncoder)
    return encoder


def model(path: Path, backbone: str = "sam_vit_nano", prompt_tokens: bool = False) -> Built:
    """A model of two tasks, from a description, as a run builds it."""
    spec = ModelSpec(
        backbone=Entry(backbone, {"checkpoint": str(path)}),
        adapter=Entry("frozen"),
        decoder=Entry("sam_mask", {"prompt_tokens": prompt_tokens}),
        tasks=tuple(task.to_json() for task in TASKS),
        image_size=(64, 96),
    )
    return build(spec)


def check_arrival(built: Built, state: Mapping[str, Tensor]) -> None:
    encoder = built.model.encoder.state_dict()
    wanted = {ours(name): x for name, x in state.items() if name.startswith("image_encoder.")}
    assert encoder.keys() == wanted.keys()
    assert all(torch.equal(encoder[name], x) for name, x in wanted.items())
    for task in TASKS:
        head = built.model.decoders[task.name].state_dict()
        decoder = {name: x for name, x in state.items() if name.startswith("mask_decoder.")}
        assert head.keys() - {"prompts.weight"} == {*decoder, NO_MASK, FREQUENCIES}
        assert all(torch.equal(head[name], x) for name, x in decoder.items())
        assert torch.equal(head[NO_MASK], state[f"prompt_encoder.{NO_MASK}"].expand(task.channels, -1))
        assert torch.equal(head[FREQUENCIES], state[f"prompt_encoder.{FREQUENCIES}"])


@pytest.mark.parametrize("prompt_tokens", [False, True])
def test_every_value_of_an_official_file_arrives_in_encoder_and_decoders(
    path: Path, state: dict[str, Tensor], prompt_tokens: bool
) -> None:
    built = model(path, prompt_tokens=prompt_tokens)
    assert not built.random
    check_arrival(built, state)


@pytest.mark.slow
def test_so_does_every_value_of_the_file_of_vit_b(tmp_path: Path) -> None:
    options = {"img_size": 1024, "embed_dim": 768, "depth": 12, "num_heads": 12, "window_size": 14}
    state = official({**options, "global_attn_indexes": (2, 5, 8, 11)})
    torch.save(state, tmp_path / "sam_vit_b_01ec64.pth")
    check_arrival(model(tmp_path / "sam_vit_b_01ec64.pth", "sam_vit_b"), state)


def test_a_safetensors_file_will_do(tmp_path: Path, state: dict[str, Tensor]) -> None:
    safetensors.torch.save_file(state, tmp_path / "sam.safetensors")
    check_arrival(model(tmp_path / "sam.safetensors"), state)


def test_the_size_of_the_pictures_does_not_change_the_weights(path: Path) -> None:
    first, second = (SamNano(checkpoint=str(path)).build(size) for size in ((64, 64), (512, 256)))
    assert {name: x.shape for name, x in first.state_dict().items()} == {
        name: x.shape for name, x in second.state_dict().items()
    }


def test_without_the_neck_its_weights_are_left_out(path: Path, state: dict[str, Tensor]) -> None:
    loaded = load(SamNano(checkpoint=str(path), features=Features.blocks)).state_dict()
    names = {ours(name) for name in state if name.startswith("image_encoder.")}
    assert loaded.keys() == {name for name in names if not name.startswith("neck.")}


def timm_layout(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {ours(name).replace("rel_pos.", "rel_pos_"): x for name, x in state.items() if "image_encoder." in name}


def test_a_file_in_timms_layout_loads_and_its_decoders_say_that_they_start_at_random(
    tmp_path: Path, state: dict[str, Tensor]
) -> None:
    torch.save(timm_layout(state), tmp_path / "timm.pth")
    encoder = load(SamNano(checkpoint=str(tmp_path / "timm.pth")))
    loaded = encoder.state_dict()
    assert all(torch.equal(loaded[ours(name)], x) for name, x in state.items() if "image_encoder." in name)
    with pytest.warns(
        UserWarning, match=r"the backbone's checkpoint holds no mask decoder .* sam_mask starts at random"
    ):
        SamMask().build(TASKS[0], encoder)


def test_a_merged_state_goes_back_under_timms_names(path: Path, state: dict[str, Tensor]) -> None:
    encoder = load(SamNano(checkpoint=str(path)))
    original, wanted = encoder.original(encoder.state_dict()), timm_layout(state)
    assert original.keys() == wanted.keys()
    assert all(torch.equal(original[name], x) for name, x in wanted.items())


def test_an_artefact_remembers_every_decoder_and_its_frequencies(path: Path, tmp_path: Path) -> None:
    built = model(path)
    with torch.no_grad():
        for head in built.model.decoders.values():
            for x in head.state_dict().values():
                x.add_(torch.randn_like(x), alpha=0.01)
    save(tmp_path / "artefact", built)
    again, images = load_artefact(tmp_path / "artefact"), torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        for task, logits in built.model.eval()(images).items():
            assert torch.equal(again.model(images)[task], logits)


WRONG: dict[str, dict[str, Tensor]] = {
    "another size": official(SmallSam.overrides),
    "another model": {"conv1.weight": torch.zeros(64, 3, 7, 7), "fc.bias": torch.zeros(10)},
    "half of it": {name: x for name, x in official().items() if "blocks.3" not in name},
    "something besides": {**official(), "text_encoder.weight": torch.zeros(3)},
}


@pytest.mark.parametrize("state", WRONG.values(), ids=WRONG)
def test_a_file_for_another_model_is_refused(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other.pth does not fit this model"):
        load(SamNano(checkpoint=str(tmp_path / "other.pth")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("mask_decoder.iou_token.weight"), "1 keys .mask_decoder.iou_token.weight. missing"),
        (lambda state: state.pop(f"prompt_encoder.{NO_MASK}"), "1 keys .no_mask_embed.weight. missing"),
        (lambda state: state.update({"mask_decoder.more": torch.zeros(1)}), "1 keys .mask_decoder.more. unexpected"),
        (
            lambda state: state.update({f"prompt_encoder.{NO_MASK}": torch.zeros(1, 8)}),
            r"no_mask_embed.weight has shape \(5, 8",
        ),
    ],
    ids=["a token is missing", "the embedding is missing", "more than there is", "another width"],
)
def test_another_mask_decoder_is_refused(state: dict[str, Tensor], change: Any, message: str) -> None:
    encoder = SamNano().build((64, 64))
    assert isinstance(encoder, SamEncoder)
    encoder.mask_decoder_state = split(state)[1]
    change(encoder.mask_decoder_state)
    with pytest.raises(CheckpointError, match=rf"mask decoder of the backbone's checkpoint does not fit .*{message}"):
        SamMask().build(TASKS[0], encoder)


def test_a_mask_decoder_that_is_not_finite_is_refused(state: dict[str, Tensor]) -> None:
    encoder = SamNano().build((64, 64))
    assert isinstance(encoder, SamEncoder)
    name = "mask_decoder.iou_token.weight"
    encoder.mask_decoder_state = {**split(state)[1], name: torch.full((1, 256), torch.nan)}
    with pytest.raises(CheckpointError, match=rf"checkpoint: {name} holds NaN or infinity; the file is damaged"):
        SamMask().build(TASKS[0], encoder)


def test_a_truncated_file_is_refused(tmp_path: Path, path: Path) -> None:
    (tmp_path / "sam.pth").write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"sam.pth \(\d+ bytes\) cannot be read, it is truncated"):
        load(SamNano(checkpoint=str(tmp_path / "sam.pth")))


class Configuration:
    """What a training script may have pickled beside its weights."""


def test_a_file_with_pickled_code_is_refused(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save({"model": state, "config": Configuration()}, tmp_path / "sam.pth")
    with pytest.raises(CheckpointError, match=r"sam.pth: refused, it holds more than tensors .*Configuration"):
        load(SamNano(checkpoint=str(tmp_path / "sam.pth")))


def test_pretrained_weights_are_sams_own_file(monkeypatch: pytest.MonkeyPatch, state: dict[str, Tensor]) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def fetched(url: str, **how: Any) -> dict[str, Tensor]:
        asked.append((url, how))
        return state

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fetched)
    with torch.device("meta"):
        encoder = SamBase().build((64, 64))
    found = SamBase(pretrained=True).pretrained_state(encoder)
    (url, how), *_ = asked
    assert url.endswith("/sam_vit_b_01ec64.pth")
    assert how["weights_only"]
    assert found is not None
    assert torch.equal(found["pos_embed"], state["image_encoder.pos_embed"])
    assert isinstance(encoder, SamEncoder)
    assert encoder.mask_decoder_state == split(state)[1]


def test_without_a_network_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(url: str, **how: Any) -> dict[str, Tensor]:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", unreachable)
    with torch.device("meta"):
        encoder = SamBase().build((64, 64))
    with pytest.raises(
        CheckpointError,
        match=r"samvit_base_\w+ cannot be fetched from https://.* \(OSError\); .* backbone.checkpoint=FILE",
    ):
        SamBase(pretrained=True).pretrained_state(encoder)


def test_weights_that_are_not_asked_for_are_none() -> None:
    encoder = SamNano().build((32, 32))
    assert SamNano().pretrained_state(encoder) is None
    head = SamMask().build(TASKS[0], encoder)
    assert isinstance(head, SamMaskHead)
    assert head.no_mask_embed.weight.std(dim=0).min() > 0, "at random, every channel starts elsewhere"
