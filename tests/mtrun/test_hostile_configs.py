"""Configurations of strangers: nothing in them runs, nothing is written but into the run's folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from mtrun.untrusted import check_yaml

from .conftest import TINY, Mtrun

CODE = "{_target_: os.mkdir, path: ran}"
GLOBAL = "# @package _global_\n"
LAUGHS = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)

EXPERIMENTS: dict[str, tuple[str, str]] = {
    "a callback": (f"{GLOBAL}hydra: {{callbacks: {{x: {CODE}}}}}", "'hydra' could run code"),
    "a launcher": (f"{GLOBAL}hydra: {{launcher: {CODE}}}", "'hydra' could run code"),
    "a handler of the log": (
        f"{GLOBAL}hydra: {{job_logging: {{version: 1, handlers: {{x: {{(): os.mkdir, path: ran}}}}}}}}",
        "'hydra' could run code",
    ),
    "a folder to write to": (f"{GLOBAL}hydra: {{run: {{dir: ran}}, output_subdir: x}}", "'hydra' could run code"),
    "a callback by its package": (f"# @package hydra.callbacks\nx: {CODE}", "'hydra.callbacks' could run code"),
    "a callback by its defaults": (
        f"{GLOBAL}defaults: [other@hydra.callbacks]",
        "'other@hydra.callbacks' could run code",
    ),
    "a group of Hydra's": (f"{GLOBAL}defaults: [override hydra/launcher: joblib]", "'override hydra/launcher' could"),
    "a place to search": (f"{GLOBAL}hydra: {{searchpath: [pkg://os]}}", "'hydra' could run code"),
    "a target among the options": (f"{GLOBAL}adapter: {CODE}", "'_target_' could run code"),
    "a target deep down": (f"{GLOBAL}loss: {{weights: {{depth: [{CODE}]}}}}", "'_target_' could run code"),
    "a target as the data set": (f"{GLOBAL}dataset: {CODE}", "'_target_' could run code"),
    "an object of Python": (f"{GLOBAL}seed: !!python/object/apply:os.mkdir [ran]", "evil.yaml cannot be read"),
    "a million laughs": (GLOBAL + LAUGHS, "its aliases stand for more than 100000 values"),
    "a value in itself": (f"{GLOBAL}loss: &loss {{weights: *loss}}", "a value contains itself"),
    "brackets without end": (f"{GLOBAL}seed: {'[' * 100_000}", "evil.yaml cannot be read"),
    "a megabyte": (f"{GLOBAL}#{' ' * (1 << 20)}", "bytes; a configuration has a few kilobytes"),
}


def untouched(folder: Path) -> bool:
    return not any(path.name == "ran" for path in folder.rglob("*"))


@pytest.mark.parametrize(("text", "message"), EXPERIMENTS.values(), ids=EXPERIMENTS)
def test_a_hostile_experiment_is_refused_naming_its_file(mtrun: Mtrun, tmp_path: Path, text: str, message: str) -> None:
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "evil.yaml").write_text(text)
    (folder / "other.yaml").write_text(f"x: {CODE}")
    before = sorted(tmp_path.rglob("*"))
    outcome = mtrun(*TINY, "--config-dir", str(tmp_path / "conf"), "experiment=evil", "trainer.max_steps=1")
    assert outcome.code == 2
    assert message in outcome.err
    assert "evil.yaml" in outcome.err
    assert "Traceback" not in outcome.err
    assert sorted(tmp_path.rglob("*")) == before


def test_an_experiment_that_is_not_utf_8_is_refused(mtrun: Mtrun, tmp_path: Path) -> None:
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "evil.yaml").write_bytes(b"seed: \xff\xfe")
    outcome = mtrun(*TINY, "--config-dir", str(tmp_path / "conf"), "experiment=evil")
    assert outcome.code == 2
    assert "evil.yaml cannot be read: " in outcome.err


def test_an_honest_experiment_of_ones_own_works(mtrun: Mtrun, tmp_path: Path) -> None:
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(
        f"{GLOBAL}defaults:\n  - override /adapter: frozen\nseed: 7\ndataset:\n  root: /data/hydra\n"
    )
    words = ("dataset=nyud", "backbone=swin_nano", "--config-dir", str(tmp_path / "conf"), "experiment=mine")
    outcome = mtrun(*words, "--cfg", "job")
    assert outcome.code == 0, outcome.err
    assert "seed: 7" in outcome.out
    assert "root: /data/hydra" in outcome.out


RUNS: dict[str, tuple[str, str]] = {
    "a million laughs": (LAUGHS, "its aliases stand for more than 100000 values"),
    "a value in itself": ("a: &a [*a]", "a value contains itself"),
    "an object of Python": ("seed: !!python/object/apply:os.mkdir [ran]", "config.yaml cannot be read"),
    "a variable of the environment": ("seed: ${oc.env:HOME}", "a run writes values, not references"),
    "brackets without end": ("[" * 100_000, "config.yaml cannot be read"),
}


@pytest.mark.parametrize(("text", "message"), RUNS.values(), ids=RUNS)
def test_a_hostile_configuration_in_a_run_is_refused(
    mtrun: Mtrun, trained: Path, tmp_path: Path, text: str, message: str
) -> None:
    shutil.copytree(trained, tmp_path / "run")
    path = tmp_path / "run" / "config.yaml"
    path.write_text(path.read_text().replace("seed: 0", text) if text.startswith("seed: $") else text)
    outcome = mtrun("eval", "checkpoint=run")
    assert outcome.code == 4
    assert message in outcome.err
    assert "run/config.yaml" in outcome.err
    assert untouched(tmp_path)


def test_a_target_in_a_runs_configuration_is_no_option(mtrun: Mtrun, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    path = tmp_path / "run" / "config.yaml"
    path.write_text(path.read_text().replace("dataset:\n", "dataset:\n  _target_: os.mkdir\n  path: ran\n"))
    outcome = mtrun("eval", "checkpoint=run", "dry_run=true")
    assert outcome.code == 2
    assert "_target_" in outcome.err
    assert untouched(tmp_path)


@pytest.mark.parametrize("where", ["predictions", "predictions/depth"])
def test_predictions_do_not_follow_a_link_out_of_the_run(
    mtrun: Mtrun, trained: Path, tmp_path: Path, where: str
) -> None:
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "outside").mkdir()
    (tmp_path / "run" / where).parent.mkdir(exist_ok=True)
    (tmp_path / "run" / where).symlink_to(tmp_path / "outside")
    Image.new("RGB", (8, 8)).save(tmp_path / "picture.png")
    outcome = mtrun("predict", "checkpoint=run", "input=picture.png")
    assert outcome.code == 2
    assert f"run/{where} is a link, and writing there could go anywhere; remove it, or give output=DIR" in outcome.err
    assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.parametrize(
    ("put", "message"),
    [(os.mkfifo, "it is missing, or no file"), (Path.mkdir, "it is missing, or no file")],
)
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, put: Callable[[Path], None], message: str) -> None:
    put(tmp_path / "config.yaml")
    with pytest.raises(ValueError, match=message):
        check_yaml(tmp_path / "config.yaml")


def test_a_plan_without_end_is_refused(mtrun: Mtrun, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("[" * 1_000_000)
    outcome = mtrun("plan", "--show", "plan.file=plan.json")
    assert outcome.code == 2
    assert "plan.file=plan.json: plan.json cannot be read" in outcome.err
