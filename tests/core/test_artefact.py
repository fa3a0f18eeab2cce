"""The artefact: what was trained, exactly; and whatever is wrong with one is refused, naming the file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import mt_core
from mt_core import artefact
from mt_core.artefact import (
    CONFIG,
    MANIFEST,
    WEIGHTS,
    find,
    load,
    load_artefact,
    load_trained,
    read_spec,
    save,
    trained_state,
)
from mt_core.build import Built, Entry, ModelSpec, build
from mt_core.errors import CheckpointError

from .toys import ToyEncoder

IMAGES = torch.rand(2, 3, 16, 24)


def predictions(model: nn.Module) -> dict[str, Tensor]:
    with torch.no_grad():
        return dict(model(IMAGES))


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_what_is_loaded_is_exactly_what_was_saved(built: Built, folder: Path) -> None:
    again = load_artefact(folder)
    assert again.spec == built.spec
    assert same(dict(again.model.state_dict()), dict(built.model.state_dict()))
    assert same(predictions(again.model), predictions(built.model))
    assert not again.model.training


def test_the_short_way_gives_the_model(built: Built, folder: Path) -> None:
    assert same(predictions(mt_core.load(str(folder))), predictions(built.model))


def test_an_artefact_is_three_files_and_holds_no_frozen_weight(built: Built, folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {CONFIG, WEIGHTS, MANIFEST}
    kept = safetensors.torch.load_file(folder / WEIGHTS)
    assert kept.keys() == {name for name, p in built.model.named_parameters() if p.requires_grad}


def test_statistics_of_batch_norm_are_kept() -> None:
    norm = nn.BatchNorm1d(2)
    norm.weight.requires_grad_(False)
    norm.register_buffer("passing", torch.ones(1), persistent=False)
    norm(torch.rand(4, 2))
    assert trained_state(norm).keys() == {"bias", "running_mean", "running_var", "num_batches_tracked"}


def test_an_average_of_the_weights_may_be_saved_in_their_place(built: Built, tmp_path: Path) -> None:
    average = {name: torch.zeros_like(x) for name, x in trained_state(built.model).items()}
    save(tmp_path / "average", built, average)
    assert same(trained_state(load_artefact(tmp_path / "average").model), average)
    assert not same(trained_state(built.model), average)


def test_a_folder_with_something_in_it_is_not_written_to(built: Built, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="is not empty; an artefact is written into a new folder"):
        save(tmp_path, built)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_empty_folder_is_a_new_one(built: Built, tmp_path: Path) -> None:
    save(tmp_path, built)
    assert read_spec(tmp_path) == built.spec


@pytest.mark.parametrize("stage", ["save_file", "sha256"])
def test_an_interrupted_write_leaves_no_manifest_and_is_no_artefact(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(safetensors.torch if stage == "save_file" else artefact, stage, interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path / "artefact", built)
    assert not (tmp_path / "artefact" / MANIFEST).exists()
    with pytest.raises(CheckpointError, match="no artefact there"):
        load(tmp_path / "artefact")


def test_another_base_is_refused(built: Built, tmp_path: Path) -> None:
    save(tmp_path / "artefact", replace(built, base="0" * 64))
    with pytest.raises(
        CheckpointError, match=r"trained on another base: .* backbone toy have hash \w{12}, the artefact"
    ):
        load_artefact(tmp_path / "artefact")


def test_the_base_may_have_moved(spec: ModelSpec, tmp_path: Path) -> None:
    old, new, other = tmp_path / "old.pth", tmp_path / "new.pth", tmp_path / "other.pth"
    torch.save(ToyEncoder().state_dict(), old)
    torch.save(ToyEncoder().state_dict(), other)
    built = build(replace(spec, backbone=Entry("toy", {"checkpoint": str(old)})))
    save(tmp_path / "artefact", built)
    old.rename(new)
    with pytest.raises(CheckpointError, match=r"old.pth: no such file"):
        load_artefact(tmp_path / "artefact")
    again = load_artefact(tmp_path / "artefact", checkpoint=str(new))
    assert same(predictions(again.model), predictions(built.model.eval()))
    with pytest.raises(CheckpointError, match="trained on another base"):
        load_artefact(tmp_path / "artefact", checkpoint=str(other))


STATES: dict[str, tuple[Callable[[dict[str, Tensor]], dict[str, Tensor]], str]] = {
    "one missing": (lambda s: dict(list(s.items())[1:]), r"source: missing \['bias'\], unexpected nothing"),
    "one more": (lambda s: {**s, "more": torch.ones(1)}, r"source: missing nothing, unexpected \['more'\]"),
    "another shape": (
        lambda s: {**s, "bias": torch.ones(3)},
        r"bias is torch.float32 \(3,\), expected torch.float32 \(2,\)",
    ),
    "another type": (
        lambda s: {**s, "bias": s["bias"].half()},
        r"bias is torch.float16 \(2,\), expected torch.float32",
    ),
}


@pytest.mark.parametrize(("change", "message"), STATES.values(), ids=STATES)
def test_trained_weights_that_do_not_fit_are_refused_and_nothing_changes(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], message: str
) -> None:
    model = nn.Linear(3, 2)
    before = {name: x.clone() for name, x in trained_state(model).items()}
    other = {name: x + 1 for name, x in sorted(before.items())}
    with pytest.raises(CheckpointError, match=message):
        load_trained(model, change(other), "source")
    assert same(trained_state(model), before)


def complete(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / MANIFEST).touch()
    return folder


def test_an_artefact_means_itself(folder: Path) -> None:
    assert find(folder) == folder


def test_of_a_run_the_best_is_meant_and_else_the_newest_that_is_complete(tmp_path: Path) -> None:
    (tmp_path / "artefacts" / "step-000300").mkdir(parents=True)
    complete(tmp_path / "artefacts" / "step-000100")
    newest = complete(tmp_path / "artefacts" / "step-000200")
    assert find(tmp_path) == newest
    best = complete(tmp_path / "artefacts" / "best-000100")
    assert find(tmp_path) == best
    for name in ("best-999999", "best-1000000"):  # by number, where the alphabet has the second first
        latest = complete(tmp_path / "artefacts" / name)
        assert find(tmp_path) == latest


def test_where_there_is_none_it_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"no artefact there; expected a run's folder, or one with {CONFIG} and"):
        find(tmp_path)
