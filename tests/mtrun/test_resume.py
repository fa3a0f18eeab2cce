"""Going on with a run: it ends as if nothing had happened, and says clearly when it cannot."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mt_core.artefact import find
from mt_core.dataset import Sample, Samples
from mt_core.discovery import registry
from mt_core.errors import ConfigError
from mt_core.hookspecs import hookimpl
from mt_core.task import Task
from mtrun.cli import main
from mtrun.lock import locked
from mtrun.progress import Progress
from mtrun.runfolder import cut

from .conftest import TINY, Mtrun, plugin
from .toy import Toy

STEPS = 12
RANDOM = (
    *TINY, "dataset=trap", "dataset.count=5", "tasks=[semseg,depth]", f"trainer.max_steps={STEPS}",
    "trainer.eval_every=4", "trainer.ema=0.9", "adapter.dropout=0.2", "backbone.drop_path=0.2", "augment.jitter=0.2",
)  # fmt: skip


@dataclass
class Signal:
    """Sends a signal to the main process when so many pictures of a split have been looked at."""

    split: str
    left: int
    number: signal.Signals
    process: int


ARMED: list[Signal] = []


@dataclass(frozen=True)
class Watched:
    """Samples that spring what is armed."""

    samples: Samples
    split: str

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int, /) -> Sample:
        for armed in ARMED:
            if armed.split == self.split:
                armed.left -= 1
                if armed.left == 0:
                    os.kill(armed.process, armed.number)
                    time.sleep(1)  # what waits for this picture is interrupted
        return self.samples[index]


@dataclass(kw_only=True)
class Trap(Toy):
    """The toy pictures; looking at one may end the run."""

    def split(self, name: str, tasks: Sequence[Task]) -> Samples:
        return Watched(super().split(name, tasks), name)


class TrapPlugin:
    @hookimpl
    def mt_datasets(self) -> Mapping[str, type | str]:
        return {"trap": Trap}


@pytest.fixture(autouse=True)
def _trap() -> Iterator[None]:
    with plugin(TrapPlugin(), "trap"):
        yield
    ARMED.clear()


class Killing:
    """Sends a signal to this process at the end of a step."""

    def __init__(self, step: int, number: signal.Signals) -> None:
        self.step, self.number = step, number

    @hookimpl
    def mt_step_end(self, step: int) -> None:
        if step == self.step:
            os.kill(os.getpid(), self.number)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupts, with everything random that there is. An epoch ends in the middle of a batch."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    with plugin(TrapPlugin(), "trap2"):
        assert main([*RANDOM, f"run_dir={folder}"]) == 0
    return folder


@pytest.fixture
def short(mtrun: Mtrun, trained: Path, tmp_path: Path) -> Path:
    """A copy of a run of four steps, saved after the second and the last."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def states(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "state").iterdir())


def record(run: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` without times."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "images_per_second")} for line in found]


def assert_the_same_run(a: Path, b: Path) -> None:
    assert states(a) == states(b)
    for name in states(a):
        first, second = (load_file(run / "state" / name / "tensors.safetensors") for run in (a, b))
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first), name
    assert record(a) == record(b)
    results = [json.loads((run / "result.json").read_text()) for run in (a, b)]
    for key in ("metrics", "best", "steps"):
        assert results[0][key] == results[1][key]
    assert find(a).name == find(b).name
    weights = [load_file(find(run) / "adapter_model.safetensors") for run in (a, b)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_state_holds_all_that_a_step_changes_and_no_frozen_weight(whole: Path) -> None:
    assert states(whole) == ["step-000008", "step-000012"]
    names = load_file(whole / "state" / "step-000012" / "tensors.safetensors").keys()
    trained = {name.removeprefix("trained/") for name in names if name.startswith("trained/")}
    assert any(name.endswith("running_mean") for name in trained)
    assert {name.removeprefix("average/") for name in names if name.startswith("average/")} == trained
    moments = {name.split("/")[2] for name in names if name.startswith("optimizer/exp_avg/")}
    assert moments
    assert moments < trained
    assert not any(name.endswith(("qkv.base.weight", "attn.qkv.weight")) for name in trained)


def test_the_same_seed_repeats_a_run_bit_for_bit(mtrun: Mtrun, whole: Path, tmp_path: Path) -> None:
    assert mtrun(*RANDOM, "run_dir=run").code == 0
    assert_the_same_run(tmp_path / "run", whole)


@pytest.mark.parametrize(
    ("number", "code", "workers"), [(signal.SIGTERM, 143, 0), (signal.SIGINT, 130, 1)], ids=["SIGTERM", "SIGINT"]
)
def test_stopped_after_step_10_and_resumed_equals_never_stopped(
    mtrun: Mtrun, whole: Path, tmp_path: Path, number: signal.Signals, code: int, workers: int
) -> None:
    with plugin(Killing(10, number), "killing"):
        outcome = mtrun(*RANDOM, f"trainer.workers={workers}", "run_dir=run")
    assert outcome.code == code
    assert "stopped after step 10, which is saved in run/artefacts; mtrun resume=run goes on" in outcome.err
    assert states(tmp_path / "run") == ["step-000008", "step-000010"]
    outcome = mtrun("resume=run", "trainer.workers=0", "trainer.save_every=4")
    assert outcome.code == 0, outcome.err
    assert "resuming run after step 10 of 12" in outcome.err
    assert "trainer.save_every: null -> 4" in outcome.err
    shutil.rmtree(tmp_path / "run" / "state" / "step-000010")
    shutil.copytree(whole / "state" / "step-000008", tmp_path / "run" / "state" / "step-000008")
    assert_the_same_run(tmp_path / "run", whole)


@pytest.mark.parametrize(
    ("split", "left", "workers", "step"),
    [("train", 13, 0, 6), ("train", 13, 1, None), ("val", 12, 0, 8), ("val", 2, 0, 0)],
    ids=["waiting for data", "waiting for a worker", "evaluating", "evaluating before training"],
)
def test_a_signal_while_waiting_or_evaluating_saves_the_last_step(
    mtrun: Mtrun, whole: Path, tmp_path: Path, split: str, left: int, workers: int, step: int | None
) -> None:
    ARMED.append(Signal(split, left, signal.SIGTERM, os.getpid()))
    outcome = mtrun(*RANDOM, f"trainer.workers={workers}", "run_dir=run")
    ARMED.clear()
    assert outcome.code == 143
    if step is not None:
        assert states(tmp_path / "run")[-1] == f"step-{step:06d}"
    assert mtrun("resume=run", "trainer.workers=0").code == 0
    for name in set(states(tmp_path / "run")) - set(states(whole)):
        shutil.rmtree(tmp_path / "run" / "state" / name)
    assert_the_same_run(tmp_path / "run", whole)


def test_a_run_killed_between_an_evaluation_and_its_state_repeats_it(mtrun: Mtrun, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / "state" / "step-000012" / "manifest.json").unlink()
    (tmp_path / "run" / "metrics.jsonl").open("a").write('{"event": "train", "st')
    outcome = mtrun("resume=run")
    assert outcome.code == 0, outcome.err
    assert "step-000012 was never finished: it has no manifest.json; the state before it is taken" in outcome.err
    assert "resuming run after step 8 of 12" in outcome.err
    assert_the_same_run(tmp_path / "run", whole)


def test_a_run_that_is_done_says_so_and_more_steps_take_it_further(mtrun: Mtrun, short: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in short.rglob("*") if path.name != "lock"}
    outcome = mtrun("resume=run")
    assert outcome.code == 0
    assert "the run has taken all of its 4 steps; trainer.max_steps=NUMBER takes it further" in outcome.out
    assert {path: path.stat().st_mtime_ns for path in short.rglob("*") if path.name != "lock"} == before
    outcome = mtrun("resume=run", "trainer.max_steps=6", "--json")
    assert outcome.json["steps"] == 6
    assert "trainer.max_steps: 4 -> 6" in outcome.err
    assert [line["step"] for line in record(short) if line["event"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert states(short) == ["step-000004", "step-000006"]
    assert "max_steps: 6" in (short / "config.yaml").read_text()
    assert len(list((short / "artefacts").iterdir())) == 2


def test_another_batch_size_goes_on_with_the_next_pictures(mtrun: Mtrun, short: Path) -> None:
    (short / "state" / "step-000004" / "state.json").unlink()
    outcome = mtrun("resume=run", "trainer.batch_size=3", "trainer.max_steps=null", "trainer.epochs=2", "--json")
    assert outcome.code == 0, outcome.err
    assert "state.json is missing; the state is incomplete" in outcome.err
    progress = json.loads((short / "state" / "step-000005" / "state.json").read_text())["progress"]
    assert (progress["step"], progress["position"]) == (5, 13)  # 2 steps of 2, 3 of 3: 12 pictures take as many


def test_an_average_may_begin_when_a_run_goes_on(mtrun: Mtrun, short: Path) -> None:
    outcome = mtrun("resume=run", "trainer.max_steps=5", "trainer.ema=0.9")
    assert outcome.code == 0, outcome.err
    names = load_file(short / "state" / "step-000005" / "tensors.safetensors")
    assert int(names["average_updates"]) == 1
    assert mtrun("resume=run", "trainer.max_steps=6", "trainer.ema=null").code == 0


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("adapter.rank=4",), 2, "adapter.rank cannot change when a run goes on: it was 2, it would be 4"),
        (("adapter=frozen",), 2, "adapter cannot change when a run goes on: it was mtlora, it would be frozen"),
        (("backbone=swin_tiny",), 2, "backbone cannot change"),
        (("tasks=[depth,semseg]",), 2, "tasks cannot change"),
        (("tasks=[semseg:5,depth,normals,saliency]",), 2, "task.semseg.channels cannot change"),
        (("loss.names.depth=log_l1",), 2, "loss"),
        (("seed=1",), 2, "seed cannot change when a run goes on: it was 0, it would be 1"),
        (("dataset=rooms",), 2, "dataset cannot change"),
        (("protocol=mtan",), 2, "protocol mtan does not say how to measure the kind 'saliency'"),
        (("image_size=[64,64]",), 2, "image_size cannot change"),
        (("run_dir=other",), 2, "with resume: a run goes on in its own folder; copy it beforehand"),
        (("dataset.count=7",), 2, "the training split has 7 pictures, it had 6 when the run was saved"),
        (("trainer.max_steps=1",), 2, "the run has taken 4 steps already, more than the 1 asked for"),
        (("dry_run=true",), 2, "dry_run=true and resume exclude each other"),
        (("trainer.save_every=0",), 2, "trainer.save_every=0: expected at least 1"),
        (("resume=nowhere",), 4, "resume=nowhere: no run there, it has no config.yaml"),
        (("resume=",), 2, "resume names no run: give the folder of one run"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_would_be_another_run_is_refused(
    mtrun: Mtrun, short: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    before = {path: path.read_bytes() for path in short.rglob("*") if path.is_file() and path.name != "lock"}
    outcome = mtrun("resume=run", *words)
    assert (outcome.code, message in outcome.err) == (code, True), outcome.err
    assert "Traceback" not in outcome.err
    assert {path: path.read_bytes() for path in before} == before


def test_other_frozen_weights_are_refused(mtrun: Mtrun, short: Path) -> None:
    torch.manual_seed(5)
    encoder = registry("backbones")["swin_nano"]().build((32, 40))
    torch.save(encoder.state_dict(), "other.pth")
    outcome = mtrun("resume=run", "trainer.max_steps=5", "backbone.checkpoint=other.pth")
    assert outcome.code == 4
    assert "the frozen weights of backbone swin_nano have hash" in outcome.err


def test_without_a_complete_state_nothing_is_begun(mtrun: Mtrun, short: Path) -> None:
    for file in (short / "state").rglob("tensors.safetensors"):
        file.write_bytes(file.read_bytes()[:-1])
    outcome = mtrun("resume=run")
    assert outcome.code == 4
    assert "step-000004/tensors.safetensors is damaged: its sum is not the one in manifest.json" in outcome.err
    assert "no complete state to go on from, 2 damaged or unfinished; start a new run" in outcome.err
    assert (short / "result.json").is_file()


def test_a_run_that_is_done_is_shown_even_where_its_result_has_no_numbers(mtrun: Mtrun, short: Path) -> None:
    (short / "result.json").write_text('{"metrics": {"final": {"depth": {"rmse": null}}}}')
    outcome = mtrun("resume=run")
    assert outcome.code == 0, outcome.err
    assert "rmse" in outcome.out


def test_a_result_that_cannot_be_read_is_not_taken_for_one(mtrun: Mtrun, short: Path) -> None:
    (short / "result.json").write_text("[]")
    outcome = mtrun("resume=run")
    assert outcome.code == 4
    assert "holds no result; remove it to have it made again" in outcome.err
    (short / "result.json").unlink()
    assert mtrun("resume=run").code == 0
    assert json.loads((short / "result.json").read_text())["steps"] == 4


def test_a_best_artefact_that_is_gone_is_looked_for_anew(mtrun: Mtrun, short: Path) -> None:
    for folder in (short / "artefacts").glob("best-*"):
        shutil.rmtree(folder)
    outcome = mtrun("resume=run", "trainer.max_steps=5")
    assert outcome.code == 0, outcome.err
    assert "is gone; the best is looked for anew" in outcome.err
    assert find(short).name == "best-000005"


def test_a_run_that_is_alive_is_refused_and_a_dead_one_is_no_obstacle(mtrun: Mtrun, short: Path) -> None:
    code = (
        "import sys, time, pathlib\nfrom mtrun.lock import locked\n"
        "with locked(pathlib.Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(short)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        outcome = mtrun("resume=run")
        holder.kill()
    assert outcome.code == 2
    assert f"run is being trained by process {holder.pid} on " in outcome.err
    assert mtrun("resume=run").code == 0


def test_a_worker_that_outlives_its_run_does_not_hold_the_lock(tmp_path: Path) -> None:
    ready, tell = os.pipe()
    with locked(tmp_path):
        child = os.fork()
        if child == 0:
            os.write(tell, b"!")
            time.sleep(600)
            os._exit(0)
        os.read(ready, 1)
    try:
        with locked(tmp_path), pytest.raises(ConfigError, match="is being trained by process"), locked(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_parameters_of_a_run_are_counted_by_naming_it(mtrun: Mtrun, short: Path) -> None:
    result = json.loads((short / "result.json").read_text())
    assert mtrun("params", "resume=run", "--json").json["trainable"] == result["parameters"]["trainable"]


def test_progress_survives_as_json_with_what_was_not_measured(whole: Path) -> None:
    values = json.loads((whole / "state" / "step-000012" / "state.json").read_text())["progress"]
    progress = Progress.from_json(values)
    assert progress.last is not None
    progress.last.losses["depth"] = float("nan")
    again = Progress.from_json(json.loads(json.dumps(progress.to_json(), allow_nan=False)))
    assert again.last is not None
    assert again.last.losses["depth"] != again.last.losses["depth"]
    assert again.best == progress.best
    assert again.best_loss({"semseg": 1.0, "depth": 1.0}) < float("inf")
    assert Progress().best_loss({}) == float("inf")


def test_the_record_is_cut_where_the_run_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    cut(file, Progress())
    lines = [f'{{"event": "{event}", "step": {step}}}' for step in range(4) for event in ("train", "val")]
    file.write_bytes("\n".join([*lines, '{"event": "tr']).encode() + b"\xff\x00")
    cut(file, Progress(step=2, evaluated=1))
    assert file.read_text().splitlines() == [*lines[:4], lines[4]]


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    words = (
        "backbone=swin_nano", "tasks=[semseg,depth]", "dataset=rooms", "dataset.train=6", "dataset.val=2",
        "adapter.rank=2", "image_size=[64,64]", "trainer.max_steps=10", "trainer.batch_size=2", "trainer.save_every=1",
        "trainer.eval_every=4", "trainer.ema=0.9", "trainer.device=cpu", "trainer.workers=1", "trainer.panels=0",
        "trainer.log_every=1",
    )  # fmt: skip

    def start(*more: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", "mtrun", *more], cwd=tmp_path, stderr=subprocess.DEVNULL)

    assert start(*words, "run_dir=whole").wait() == 0
    kills, command = 0, (*words, "run_dir=run")
    while True:
        process, have = start(*command), len(record_or_nothing(tmp_path / "run"))
        while process.poll() is None and len(record_or_nothing(tmp_path / "run")) < have + 4:
            time.sleep(0.02)
        if process.poll() is not None:
            break
        time.sleep(0.03 * kills)
        process.kill()
        process.wait()
        kills, command = kills + 1, ("resume=run",)
    assert process.returncode == 0
    assert kills >= 2
    assert_the_same_run(tmp_path / "run", tmp_path / "whole")


def record_or_nothing(run: Path) -> list[str]:
    file = run / "metrics.jsonl"
    return file.read_text().splitlines() if file.is_file() else []
