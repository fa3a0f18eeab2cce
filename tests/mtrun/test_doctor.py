"""`mtrun doctor`: what is here, and whether it works."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from mt_core import discovery
from mt_core.hookspecs import hookimpl
from mtrun.torch_engine import TorchEngine

from .conftest import Mtrun, plugin


def test_where_all_is_well_a_step_is_taken_and_it_ends_with_0(mtrun: Mtrun, tmp_path: Path) -> None:
    outcome = mtrun("doctor", "--json")
    assert outcome.code == 0, outcome.out
    found = outcome.json
    assert found["problems"] == []
    assert found["needed"].keys() >= {"torch", "hydra-core"}
    assert all(found["needed"].values())
    assert "onnxruntime" in found["optional"]
    assert "torch" in found["engines"]
    step = found["steps"]["cpu"]
    assert (step["backbone"], step["adapter"]) == ("swin_tiny", "mtlora")
    assert step["moved"] > 10
    assert all(loss > 0 for loss in step["losses"].values())
    assert any(dist.startswith("mt-core ") for dist in found["dists"])
    assert list(tmp_path.iterdir()) == []


class Broken:
    """One class that cannot be imported, and one name that another plugin has, too."""

    @hookimpl
    def mt_decoders(self) -> Mapping[str, str]:
        return {"broken": "nowhere_at_all:Head"}


class Twice:
    @hookimpl
    def mt_datasets(self) -> Mapping[str, str]:
        return {"rooms": "nowhere_at_all:Rooms"}


def test_broken_plugins_are_named_and_it_ends_with_6(mtrun: Mtrun) -> None:
    with plugin(Broken(), "broken"), plugin(Twice(), "twice"):
        outcome = mtrun("doctor")
    assert outcome.code == 6
    assert "PROBLEM    decoder 'broken' of broken 1.0 cannot be imported from nowhere_at_all:Head" in outcome.out
    assert "PROBLEM    dataset 'rooms' comes from both" in outcome.out
    assert "2 problems" in outcome.out
    assert "mtlora on swin_tiny trains on cpu" in outcome.out


def test_a_plugin_that_was_left_out_is_named(mtrun: Mtrun, monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        name = "stranger"

        def load(self) -> None:
            raise ImportError("no module of mine")

    usual = list(discovery._installed())
    monkeypatch.setattr(discovery, "_installed", lambda: [*usual, (Entry(), "strange 1.0")])
    outcome = mtrun("doctor", "--json")
    assert outcome.code == 6
    assert outcome.json["problems"] == ["plugin 'stranger' of strange 1.0 is left out: ImportError: no module of mine"]


def test_a_hook_that_does_not_exist_is_a_problem(mtrun: Mtrun, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise discovery.PluginError("unknown hook 'mt_adapter'")

    monkeypatch.setattr("mtrun.verbs.doctor.load", refuse)
    outcome = mtrun("doctor", "--json")
    assert outcome.code == 6
    assert outcome.json["problems"] == ["unknown hook 'mt_adapter'"]


def test_a_folder_that_cannot_be_written_to_ends_with_2(mtrun: Mtrun, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(dir: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    outcome = mtrun("doctor", "--json")
    assert outcome.code == 2
    assert "cannot be written to: Permission denied; give run_dir=DIR" in outcome.json["problems"][0]


def test_a_step_that_fails_is_a_problem(mtrun: Mtrun, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no kernel image")

    monkeypatch.setattr(TorchEngine, "step", fail)
    outcome = mtrun("doctor", "--json")
    assert outcome.code == 1
    assert outcome.json["problems"] == ["a training step on cpu fails: RuntimeError: no kernel image"]


def test_a_step_that_changes_nothing_is_a_problem(mtrun: Mtrun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.optim.AdamW.step", lambda *_: None)
    outcome = mtrun("doctor")
    assert outcome.code == 6
    assert "adapter mtlora on swin_tiny: no parameter has changed after a step" in outcome.out


def test_without_a_backbone_it_says_what_to_install(mtrun: Mtrun, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = discovery.load(entry_points=False)
    monkeypatch.setattr(discovery, "plugins", lambda: bare)
    outcome = mtrun("doctor")
    assert outcome.code == 6
    assert "no backbone is installed, so nothing can be trained: pip install mt-backbones-swin" in outcome.out


def test_it_takes_no_options(mtrun: Mtrun) -> None:
    outcome = mtrun("doctor", "device=cuda")
    assert outcome.code == 2
    assert "mtrun doctor device=cuda: it takes no options, only --json" in outcome.err
