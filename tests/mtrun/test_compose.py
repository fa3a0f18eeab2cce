"""Composition: what is installed becomes configurable, chosen, checked and turned into objects."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from mt_core.adapter import Adapter
from mt_core.backbone import Backbone
from mt_core.errors import ConfigError, PluginError
from mt_core.hookspecs import hookimpl
from mtrun import job as jobs
from mtrun.compose import compose, value_of
from mtrun.config import TrainConfig, typed
from mtrun.recipe import AugmentOptions, Optimizer, Precision
from mtrun.source import Root

from .conftest import TINY, Mtrun, plugin
from .toy import Toy


def composed(*words: str, saved: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    compose(Root("train", TrainConfig, saved or {}), words, found.append)
    return found


def config(*words: str) -> tuple[TrainConfig, dict[str, Any]]:
    (values,) = composed(*words)
    return typed(TrainConfig, values), values


def test_options_of_plugins_and_of_the_run_arrive_with_their_types() -> None:
    found, _ = config(*TINY, "trainer.optimizer=adam", "trainer.precision=bf16", "trainer.lr=1", "image_size=[64,96]")
    assert found.adapter["name"] == "mtlora"
    assert found.adapter["rank"] == 2
    assert found.dataset == {"name": "toy", "count": 6, "infinite": -1, "broken": -1}
    assert (found.trainer.optimizer, found.trainer.precision) == (Optimizer.adam, Precision.bf16)
    assert found.trainer.lr == 1.0
    assert found.trainer.betas == (0.9, 0.999)
    assert found.image_size == (64, 96)


def test_the_job_has_the_objects_that_the_options_describe() -> None:
    words = ("tasks=[depth,semseg:2]", "loss.weights.depth=2", "backbone.features=before_merging")
    job = jobs.job_of(*config(*TINY, *words))
    assert isinstance(job.dataset, Toy)
    assert [(task.name, task.channels) for task in job.tasks] == [("depth", 1), ("semseg", 2)]
    assert job.spec.image_size == Toy.image_size
    assert job.spec.backbone.options["features"] == "before_merging"
    assert job.spec.decoder.name == "hrnet"
    assert job.config.loss.weights == {"depth": 2.0}


def test_a_task_can_be_trained_with_another_loss() -> None:
    job = jobs.job_of(*config(*TINY, "loss.names.normals=cosine"))
    assert {task.name: task.loss_name for task in job.tasks}["normals"] == "cosine"


@pytest.mark.parametrize(
    ("adapter", "backbone", "decoder"),
    [
        ("mtlora", "swin_nano", "hrnet"),
        ("mtlora_plus", "swin_nano", "hrnet"),
        ("tora", "swin_nano", "hrnet"),
        ("frozen", "swin_nano", "hrnet"),
        ("tglora", "swin_nano", "hrnet"),
        ("vmt", "swin_nano", "segformer"),
        ("vmt", "sam_vit_nano", "sam_mask"),
        ("mtlora", "sam_vit_nano", "sam_mask"),
        ("tora", "sam_vit_nano", "sam_mask"),
        ("mtlora", "sam_vit_nano backbone.features=blocks", "hrnet"),
        ("tora", "sam_vit_nano backbone.features=blocks", "hrnet"),
    ],
)
def test_the_decoder_is_the_papers_or_that_of_sams_neck(adapter: str, backbone: str, decoder: str) -> None:
    words = (f"adapter={adapter}", *f"backbone={backbone}".split(), "dataset=toy", "image_size=[64,64]")
    assert jobs.job_of(*config(*words)).spec.decoder.name == decoder


@pytest.mark.parametrize(("decoder", "features"), [("segformer", "before_merging"), ("auto", "after_merging")])
def test_what_was_left_open_is_recorded_as_it_was_settled(decoder: str, features: str) -> None:
    job = jobs.job_of(*config(*TINY, f"decoder={decoder}"))
    assert job.spec.backbone.options["features"] == features


def test_the_decoder_is_the_one_that_the_backbone_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert jobs.job_of(*config(*TINY)).spec.decoder.name == "hrnet"
    monkeypatch.setattr(Backbone, "usual_decoder", lambda self: "special")
    with pytest.raises(ConfigError, match="decoder 'special' is not installed"):
        jobs.job_of(*config(*TINY))


def test_augmentation_is_the_data_sets_unless_told_otherwise() -> None:
    usual = jobs.training(AugmentOptions(), Toy(), (32, 40))
    assert [type(t).__name__ for t in usual.transforms] == ["RandomFlip", "RandomZoom"]
    told = AugmentOptions(flip=False, rotation=5.0, zoom=(1.0, 1.0), jitter=0.1)
    assert [type(t).__name__ for t in jobs.training(told, Toy(), (32, 40)).transforms] == [
        "RandomRotation", "Resize", "ColourJitter",
    ]  # fmt: skip
    off = jobs.training(AugmentOptions(enabled=False), Toy(), (32, 40))
    assert [type(t).__name__ for t in off.transforms] == ["Resize"]


def test_a_sweep_composes_every_combination() -> None:
    found = composed("-m", *TINY, "adapter.rank=1,2", "seed=range(0,2)")
    assert [(one["adapter"]["rank"], one["seed"]) for one in found] == [(1, 0), (1, 1), (2, 0), (2, 1)]


def test_flags_may_stand_anywhere() -> None:
    assert len(composed("seed=1", "--multirun", *TINY, "adapter.rank=1,2")) == 2


def test_saved_values_stand_in_for_defaults_and_overrides_for_both() -> None:
    dataset = {"name": "toy", "count": 4, "infinite": -1, "broken": -1}
    (found,) = composed(saved={"dataset": dataset, "seed": 5, "trainer": {"batch_size": 3, "gone": 1}})
    assert (found["dataset"], found["seed"], found["trainer"]["batch_size"]) == (dataset, 5, 3)
    (found,) = composed("dataset.count=2", "seed=6", saved={"dataset": dataset, "seed": 5})
    assert (found["dataset"]["count"], found["seed"]) == (2, 6)
    (found,) = composed("dataset=nyud", saved={"dataset": dataset})
    assert found["dataset"] == {"name": "nyud", "root": ""}


def test_saved_values_that_no_longer_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="saved configuration: seed='x' does not fit"):
        composed(saved={"seed": "x"})
    with pytest.raises(ConfigError, match="saved configuration: gone=1 does not fit: Key 'gone' not in 'Toy'"):
        composed(saved={"dataset": {"name": "toy", "gone": 1}})


@pytest.mark.parametrize("name", ["demo", "paper/mtlora_pascal", "paper/mtlora_plus_pascal", "paper/mtlora_nyud"])
def test_every_experiment_that_is_shipped_composes(name: str) -> None:
    found, _ = config(f"experiment={name}", "dataset=toy", "tasks=null", "protocol=astmt")
    assert found.trainer.max_steps or found.trainer.epochs


def test_an_experiment_is_the_papers_recipe() -> None:
    found, _ = config("experiment=paper/mtlora_pascal")
    assert (found.trainer.epochs, found.trainer.batch_size, found.trainer.clip) == (300, 32, 5.0)
    assert found.trainer.lr == pytest.approx(5e-4 * 32 / 512)
    assert (found.adapter["name"], found.backbone["name"], found.dataset["name"]) == ("mtlora", "swin_tiny", "pascal")
    assert found.tasks == ["semseg", "human_parts", "saliency", "normals"]


def test_an_experiment_of_the_users_is_found_in_their_folder(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /adapter: frozen\nseed: 7\n"
    )
    (found,) = composed(f"--config-dir={tmp_path}", "experiment=mine", *TINY[3:])
    assert (found["adapter"]["name"], found["seed"]) == ("frozen", 7)


def test_only_what_is_chosen_is_imported() -> None:
    class Broken:
        @hookimpl
        def mt_adapters(self) -> dict[str, str]:
            return {"broken": "no_such_module:Thing"}

    with plugin(Broken(), "broken"):
        composed(*TINY)
        with pytest.raises(PluginError, match=r"adapter 'broken' of broken 1\.0 cannot be imported"):
            composed(*TINY[3:], "adapter=broken")


@dataclass
class Odd(Adapter):
    """An adapter with an option of a type that OmegaConf refuses."""

    mode: Literal["a", "b"] = "a"


@dataclass
class Named(Adapter):
    """An adapter with a reserved option."""

    name: str = ""


@dataclass
class Dictionary(Adapter):
    """An adapter with an option that takes any key."""

    ranks: dict[str, int] = field(default_factory=dict)


class Strange:
    @hookimpl
    def mt_adapters(self) -> dict[str, type]:
        return {"odd": Odd, "named": Named, "dictionary": Dictionary}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("odd", "its class must be a dataclass whose fields have types that OmegaConf knows"),
        ("named", "must not be called `name`"),
    ],
)
def test_a_plugin_that_cannot_be_configured_says_why(name: str, message: str) -> None:
    with plugin(Strange(), "strange"), pytest.raises(PluginError, match=message):
        composed(*TINY[3:], f"adapter={name}")


def test_a_dictionary_among_the_options_takes_any_key() -> None:
    with plugin(Strange(), "strange"):
        (found,) = composed(*TINY[3:], "adapter=dictionary", "adapter.ranks.qkv=4")
    assert found["adapter"] == {"name": "dictionary", "ranks": {"qkv": 4}}


def test_hydra_leaves_the_command_line_and_the_environment_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    before = list(sys.argv)
    composed(*TINY)
    assert sys.argv == before
    assert os.environ["HYDRA_FULL_ERROR"] == "0"


def test_the_first_failure_of_a_sweep_is_raised_after_the_others_ran(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[int] = []

    def job(values: dict[str, Any]) -> None:
        seen.append(values["seed"])
        if values["seed"] < 2:
            raise ConfigError(f"seed {values['seed']}")

    with pytest.raises(ConfigError, match="seed 0"):
        compose(Root("train", TrainConfig), ["-m", *TINY, "seed=0,1,2"], job)
    assert seen == [0, 1, 2]
    assert "seed 1" in caplog.text


def test_a_value_can_be_read_before_anything_is_composed() -> None:
    assert value_of(["a=1", "checkpoint='my run'", "b=2"], "checkpoint") == "my run"
    assert value_of(["a=1"], "checkpoint") is None
    with pytest.raises(ConfigError, match="cannot be read"):
        value_of(["checkpoint=["], "checkpoint")


def test_cfg_job_prints_the_configuration_and_runs_nothing(mtrun: Mtrun, tmp_path: Path) -> None:
    outcome = mtrun(*TINY, "--cfg", "job", "adapter.rank=3")
    assert outcome.code == 0
    assert "adapter:\n  rank: 3\n" in outcome.out
    assert list(tmp_path.iterdir()) == []


def test_info_prints_the_defaults(mtrun: Mtrun) -> None:
    outcome = mtrun(*TINY, "--info", "defaults")
    assert outcome.code == 0
    assert "adapter/mtlora" in outcome.out
