"""Building: from a description in plain values to the model, the same each time."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mt_core.backbone import Backbone
from mt_core.build import Built, Entry, ModelSpec, build, entry, spec_of, usual_decoder
from mt_core.errors import CheckpointError, ConfigError, PluginError
from mt_core.tasks import Depth, Segmentation
from mt_core.weights import state_hash

from .toys import TaskLoRA, ToyBackbone, ToyDecoder, ToyEncoder, ToyLoRA


def state(built: Built) -> dict[str, Tensor]:
    return dict(built.model.state_dict())


def with_checkpoint(spec: ModelSpec, path: Path) -> ModelSpec:
    return replace(spec, backbone=Entry("toy", {"checkpoint": str(path)}))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Pretrained weights of the toy backbone."""
    torch.manual_seed(77)
    path = tmp_path / "toy.pth"
    torch.save(ToyEncoder().state_dict(), path)
    return path


def test_a_description_becomes_the_model_it_describes(spec: ModelSpec) -> None:
    built = build(spec)
    assert list(built.model.tasks) == ["semseg", "depth"]
    qkv = built.model.encoder.get_submodule("block0.attn.qkv")
    assert isinstance(qkv, TaskLoRA)
    assert qkv.a["depth"].shape == (3, 6)
    assert built.spec is spec
    logits = built.model(torch.rand(2, 3, 16, 24))
    assert {name: tuple(x.shape) for name, x in logits.items()} == {"semseg": (2, 4, 16, 24), "depth": (2, 1, 16, 24)}


def test_the_seed_settles_every_random_start(spec: ModelSpec) -> None:
    torch.manual_seed(1)
    one = build(spec)
    torch.manual_seed(2)
    two, other = build(spec), build(replace(spec, seed=6))
    assert state_hash(state(one)) == state_hash(state(two)) != state_hash(state(other))
    assert one.base == two.base != other.base


def test_building_leaves_the_random_generator_where_it_was(spec: ModelSpec) -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    build(spec)
    assert torch.equal(torch.rand(3), expected)


def test_without_weights_the_backbone_is_random_and_says_so(spec: ModelSpec, checkpoint: Path) -> None:
    assert build(spec).random
    assert not build(with_checkpoint(spec, checkpoint)).random


def test_pretrained_weights_arrive_and_the_base_is_known_by_their_hash(spec: ModelSpec, checkpoint: Path) -> None:
    pretrained = torch.load(checkpoint)
    built = build(with_checkpoint(spec, checkpoint))
    assert built.base == state_hash(pretrained)
    plain = {name.replace(".base.", "."): value for name, value in built.model.encoder.state_dict().items()}
    assert all(torch.equal(plain[name], value) for name, value in pretrained.items())


def test_the_base_does_not_depend_on_what_is_put_in_it(spec: ModelSpec) -> None:
    frozen = build(replace(spec, adapter=Entry("frozen"), tasks=spec.tasks[:1]))
    assert frozen.base == build(spec).base


def test_on_the_meta_device_there_are_shapes_only_and_no_file_is_read(spec: ModelSpec, tmp_path: Path) -> None:
    built = build(with_checkpoint(spec, tmp_path / "missing.pth"), "meta")
    assert all(tensor.is_meta for tensor in (*built.model.parameters(), *built.model.buffers()))
    assert built.base == ""


def test_weights_of_another_size_are_refused_naming_file_and_backbone(spec: ModelSpec, checkpoint: Path) -> None:
    torch.save(ToyEncoder(8).state_dict(), checkpoint)
    with pytest.raises(CheckpointError, match=r"toy.pth for backbone toy does not fit this model: .* has shape"):
        build(with_checkpoint(spec, checkpoint))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(spec: ModelSpec, checkpoint: Path, bad: float) -> None:
    weights = torch.load(checkpoint)
    weights["block1.norm2.bias"][3] = bad
    torch.save(weights, checkpoint)
    with pytest.raises(CheckpointError, match=r"toy.pth for backbone toy: block1.norm2.bias holds NaN or infinity"):
        build(with_checkpoint(spec, checkpoint))


def test_an_image_size_that_cannot_be_is_the_backbones_to_refuse(spec: ModelSpec) -> None:
    with pytest.raises(ConfigError, match=r"image_size=\[16, 20\]: expected multiples of 8"):
        build(replace(spec, image_size=(16, 20)))


@pytest.mark.parametrize("kind", ["backbone", "adapter", "decoder"])
def test_an_entry_that_is_not_installed_is_named(spec: ModelSpec, kind: str) -> None:
    missing: Any = {kind: Entry("nonesuch")}
    with pytest.raises(ConfigError, match=f"{kind} 'nonesuch' is not installed"):
        build(replace(spec, **missing))


def test_a_kind_of_task_that_is_not_installed_is_named(spec: ModelSpec) -> None:
    with pytest.raises(PluginError, match="is of kind 'flow', which is not installed"):
        build(replace(spec, tasks=({**spec.tasks[0], "kind": "flow"},)))


def test_options_of_an_entry_are_checked(toys: None) -> None:
    assert entry("adapters", "toy_lora", {"rank": 7}) == ToyLoRA(7)
    with pytest.raises(ConfigError, match="adapter toy_lora has no option 'rnk'; it has rank"):
        entry("adapters", "toy_lora", {"rnk": 7})


# -------------------------------------------------------------------------------------------- descriptions


def test_a_description_is_made_from_objects(spec: ModelSpec) -> None:
    backbone: tuple[str, Backbone] = ("toy", ToyBackbone())
    tasks = (Segmentation("semseg", 4), Depth("depth"))
    made = spec_of(backbone, ("toy_lora", ToyLoRA(3)), ("toy", ToyDecoder()), tasks, (16, 24), seed=5)
    assert made.backbone.options == {"pretrained": False, "checkpoint": "", "width": 6}
    assert replace(made, backbone=Entry("toy")) == spec


@dataclass(kw_only=True)
class Undecided(ToyBackbone):
    """The toys' backbone whose width, left at 0, is the decoder's to settle."""

    width: int = 0

    def settled(self, decoder: str) -> Undecided:
        return self if self.width else replace(self, width=len(decoder))


def test_a_description_says_what_the_backbone_left_open() -> None:
    adapter, decoder, tasks = ("toy_lora", ToyLoRA()), ("eight---", ToyDecoder()), (Depth("depth"),)
    for given, recorded in ((0, 8), (4, 4)):
        made = spec_of(("toy", Undecided(width=given)), adapter, decoder, tasks, (16, 24))
        assert made.backbone.options["width"] == recorded


def test_a_description_that_leaves_it_open_is_built_as_if_it_said_it(
    spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ToyBackbone, "settled", lambda self, decoder: replace(self, width={"toy": 10}[decoder]))
    assert [level.channels for level in build(spec).model.encoder.levels] == [10, 20]


@pytest.mark.parametrize(
    ("brought", "of_the_paper", "expected"),
    [
        ("sam_mask", "segformer", "sam_mask"),
        ("sam_mask", "", "sam_mask"),
        ("", "segformer", "segformer"),
        ("", "", "hrnet"),
    ],
)
def test_auto_is_the_backbones_own_decoder_else_the_papers_else_hrnet(
    brought: str, of_the_paper: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ToyBackbone, "usual_decoder", lambda self: brought)
    monkeypatch.setattr(ToyLoRA, "usual_decoder", of_the_paper)
    assert usual_decoder(ToyBackbone(), ToyLoRA()) == expected


def test_without_a_word_from_either_auto_is_hrnet() -> None:
    assert usual_decoder(ToyBackbone(), ToyLoRA()) == "hrnet"


def test_a_description_survives_json(spec: ModelSpec) -> None:
    assert ModelSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "no backbone": ({"backbone": None}, "model description: backbone is missing; expected its name and options"),
    "a name alone": ({"adapter": "toy_lora"}, "model description: adapter is missing; expected its name and options"),
    "no name": ({"decoder": {"options": {}}}, "model description: decoder: .*'name'"),
    "one side": ({"image_size": [16]}, r"model description: image_size=\[16\]: expected 2 values"),
    "a size in words": ({"image_size": ["16", 24]}, "model description: image_size='16': expected int"),
    "no list of tasks": ({"tasks": "semseg"}, "model description: tasks='semseg': expected tuple"),
    "something more": ({"colour": "red"}, "model description has no option 'colour'"),
}


@pytest.mark.parametrize(("changed", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_description_that_is_wrong_is_refused(spec: ModelSpec, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelSpec.from_json({**spec.to_json(), **changed})


def test_a_description_that_lacks_something_is_refused(spec: ModelSpec) -> None:
    values = spec.to_json()
    del values["image_size"]
    with pytest.raises(ConfigError, match=r"model description: .*'image_size'"):
        ModelSpec.from_json(values)


@pytest.mark.parametrize("values", [[], "model", None, 3])
def test_what_is_no_description_is_refused(values: Any) -> None:
    with pytest.raises(ConfigError, match="model description: expected an object, found"):
        ModelSpec.from_json(values)
