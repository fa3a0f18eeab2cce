"""Saved states: whole or not there, whatever happens while they are written."""

from __future__ import annotations

import json
import logging
import multiprocessing
import random
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError

from mt_core import files
from mt_core.errors import CheckpointError
from mtrun.data import start_generators
from mtrun.resuming import differences, saved_of
from mtrun.state import State, States
from mtrun.writing import writing

from .conftest import TINY, Mtrun


def state(step: int, size: int = 1000) -> State:
    return State(step, {"step": step}, {name: torch.full((size,), float(step)) for name in ("a", "b")})


def assert_whole(found: State) -> None:
    assert found.values == {"step": found.step}
    assert all(bool((x == found.step).all()) for x in found.tensors.values())


@pytest.fixture
def saved(tmp_path: Path) -> States:
    """The states of steps 1, 2 and 3, all kept."""
    states = States(tmp_path / "state", keep=3)
    for step in (1, 2, 3):
        states.save(state(step))
    return states


def names(states: States) -> list[str]:
    return sorted(path.name for path in states.folder.iterdir())


def test_the_newest_is_taken_and_the_last_few_are_kept(saved: States) -> None:
    assert_whole(found := saved.newest())
    assert found.step == 3
    saved.keep = 2
    saved.save(state(1_000_000))
    assert names(saved) == ["step-000003", "step-1000000"]
    assert saved.newest().step == 1_000_000


def test_a_state_that_is_there_is_not_written_again(saved: States) -> None:
    before = {path: path.stat().st_mtime_ns for path in saved.folder.rglob("*")}
    saved.save(state(3))
    assert {path: path.stat().st_mtime_ns for path in saved.folder.rglob("*")} == before


def cut_short(folder: Path) -> None:
    file = folder / "tensors.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def one_bit(folder: Path) -> None:
    file = folder / "tensors.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def of_another_step(folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("step-000001"), folder)


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def holding(name: str, text: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text(text)


DAMAGES = {
    "is damaged: its sum is not the one in manifest.json": cut_short,
    "tensors.safetensors is damaged": one_bit,
    "not the manifest of step 3 in format 1": of_another_step,
    "was never finished: it has no manifest.json": without("manifest.json"),
    "state.json is missing; the state is incomplete": without("state.json"),
    "state.json is damaged": holding("state.json", "{}"),
    "manifest.json: not the manifest": holding("manifest.json", '{"files": {"../x": {}}}'),
    "manifest.json cannot be read": holding("manifest.json", "[" * 100_000),
    "manifest.json holds no object; it is not the description of a state": holding("manifest.json", "[]"),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_a_damaged_state_is_said_to_be_and_the_one_before_is_taken(
    saved: States, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    DAMAGES[message](saved.folder / "step-000003")
    again = States(saved.folder, keep=3)
    with caplog.at_level(logging.WARNING):
        assert_whole(found := again.newest())
    assert found.step == 2
    assert message in caplog.text
    assert "the state before it is taken" in caplog.text
    again.save(state(3))
    assert again.newest().step == 3
    assert names(again) == ["step-000001", "step-000002", "step-000003"]


def test_tensors_that_match_their_sum_but_are_none_are_refused(saved: States, caplog: pytest.LogCaptureFixture) -> None:
    for step in (1, 2, 3):
        folder = saved.folder / f"step-{step:06d}"
        (folder / "tensors.safetensors").write_bytes(b"\xff" * 64)
        entry = {"sha256": files.sha256(folder / "tensors.safetensors"), "bytes": 64}
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["files"]["tensors.safetensors"] = entry
        (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="no complete state to go on from, 3 damaged"):
        saved.newest()
    assert "tensors.safetensors cannot be read as tensors" in caplog.text


def test_no_state_at_all_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no complete state to go on from, 0 damaged or unfinished"):
        States(tmp_path / "state", 2).newest()


def test_a_state_that_describes_no_run_is_refused() -> None:
    for values in (
        {},
        {"progress": []},
        {"progress": {"step": "many"}},
        {"progress": {}, "base_sha256": "", "pictures": None},
    ):
        with pytest.raises(CheckpointError, match="state of step 3 does not describe a run"):
            saved_of(State(3, values, {}))


def saving(folder: Path, first: int, done: Any) -> None:
    states = States(folder, keep=2)
    if first:
        states.newest()
    for step in range(first + 1, 1_000_000):
        states.save(state(step))
        done.value = step


def test_fifty_kills_while_saving_leave_a_complete_state_each(tmp_path: Path) -> None:
    context, chance = multiprocessing.get_context("fork"), random.Random(0)
    done, folder, unfinished = context.Value("q", 0), tmp_path / "state", 0
    for _ in range(50):
        before = done.value
        process = context.Process(target=saving, args=(folder, before, done))
        process.start()
        while done.value == before:  # it is saving by now
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.02))
        process.kill()
        process.join()
        found = States(folder, keep=2).newest()
        assert_whole(found)
        assert found.step >= done.value  # what was saved is never lost
        unfinished += any(not (path / "manifest.json").is_file() for path in folder.iterdir())
        done.value = found.step
    assert unfinished > 5  # they were killed in the middle of it
    assert len(list(folder.iterdir())) <= 4


@contextmanager
def limit(size: int) -> Iterator[None]:
    """Files cannot grow beyond so many bytes: writing fails as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_harms_nothing_that_was_saved(saved: States) -> None:
    before = {path: path.read_bytes() for path in saved.folder.rglob("*") if path.is_file()}
    with (
        pytest.raises(CheckpointError, match="cannot be written: File too large; make room, or mend it"),
        limit(10_000),
        writing(saved.folder),
    ):
        saved.save(state(4, size=100_000))
    assert {path: path.read_bytes() for path in saved.folder.rglob("*") if path.is_file()} == before
    assert names(saved) == ["step-000001", "step-000002", "step-000003"]
    assert_whole(saved.newest())


def test_only_what_a_disk_does_is_taken_for_it(tmp_path: Path) -> None:
    with pytest.raises(SafetensorError, match="shared"), writing(tmp_path):
        raise SafetensorError("tensors are shared")
    with pytest.raises(CheckpointError, match="no words"), writing(tmp_path):
        raise OSError("no words")


def test_a_run_on_a_full_disk_ends_with_4_and_goes_on_when_there_is_room(
    mtrun: Mtrun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, calls = safetensors.torch.save_file, []

    def full(tensors: Any, path: Path) -> None:
        calls.append(path)
        usual(tensors, path)
        if "step-000004" in str(path):
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    outcome = mtrun(*TINY, "trainer.max_steps=6", "trainer.eval_every=2", "run_dir=run", "trainer.panels=0")
    assert outcome.code == 4
    assert "run cannot be written: No space left on device; make room, or mend it" in outcome.err
    assert "mtrun resume=run goes on from the newest state" in outcome.err
    assert "Traceback" not in outcome.err
    assert [path.name for path in (tmp_path / "run" / "state").iterdir()] == ["step-000002"]
    assert not list(tmp_path.rglob(".*"))
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    outcome = mtrun("resume=run")
    assert outcome.code == 0, outcome.err
    assert "resuming run after step 2 of 6" in outcome.err


def test_differences_are_listed_by_the_names_of_the_options() -> None:
    before = {"adapter": {"name": "a", "rank": 1}, "seed": 0, "tasks": None, "loss": {}}
    after = {"adapter": {"name": "b", "rank": 1}, "seed": 0, "tasks": ["x"], "loss": {"depth": 2.0}}
    assert differences(before, after) == [
        "adapter: a -> b", "tasks: null -> [\"x\"]", "loss: {} -> absent", "loss.depth: absent -> 2.0",
    ]  # fmt: skip


def test_the_seed_of_a_step_starts_every_generator() -> None:
    drawn = []
    for _ in range(2):
        start_generators(2**63 - 1)
        drawn.append((random.random(), float(np.random.rand()), float(torch.rand(()))))
    assert drawn[0] == drawn[1]
