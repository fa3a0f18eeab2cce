"""A training run: what it writes, what it prints, and what ends it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mt_core.artefact import find, load
from mt_core.hookspecs import hookimpl

from .conftest import TINY, Mtrun, plugin


def lines(run: Path, event: str) -> list[dict[str, Any]]:
    every = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in every if line["event"] == event]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(find(run) / "adapter_model.safetensors")


def test_a_run_leaves_its_folder_complete(trained: Path) -> None:
    names = {path.relative_to(trained).parts[0] for path in trained.rglob("*") if path.is_file()}
    files = {"config.yaml", "metrics.jsonl", "result.json", "log.txt", "lock"}
    assert names == files | {"tensorboard", "panels", "artefacts", "state"}
    assert sorted(path.name for path in (trained / "panels").iterdir()) == [f"step-00000{i}.png" for i in (0, 2, 4)]
    assert "THE BACKBONE IS RANDOM" in (trained / "log.txt").read_text()


def test_metrics_have_a_line_per_step_and_per_evaluation(trained: Path) -> None:
    steps, evaluations = lines(trained, "train"), lines(trained, "val")
    assert [line["step"] for line in steps] == [1, 2, 3, 4]
    assert set(steps[0]["loss"]) == {"semseg", "depth", "normals", "saliency", "total"}
    assert steps[0]["gradient_norm"] > 0
    assert [line["step"] for line in evaluations] == [0, 2, 4]
    assert evaluations[0]["metrics"]["semseg"]["miou"] >= 0


def test_the_total_is_the_weighted_sum_of_the_losses(trained: Path) -> None:
    loss = lines(trained, "train")[0]["loss"]
    expected = loss["semseg"] + loss["depth"] + 10 * loss["normals"] + 5 * loss["saliency"]
    assert loss["total"] == pytest.approx(expected, rel=1e-6)


def test_the_result_says_what_it_was_measured_with(trained: Path) -> None:
    result = json.loads((trained / "result.json").read_text())
    assert (result["protocol"], result["dataset"], result["steps"], result["seed"]) == ("astmt", "toy", 4, 0)
    assert result["departures"] == []
    assert result["backbone_init"] == "random"
    assert result["directions"]["depth"]["rmse"] == "lower"
    assert result["directions"]["semseg"]["miou"] == "higher"
    assert set(result["metrics"]) == {"before", "final", "best"}
    assert result["metrics"]["final"] == lines(trained, "val")[-1]["metrics"]
    assert result["parameters"]["live"] < result["parameters"]["trainable"] < result["parameters"]["total"]
    assert any(name.startswith("mt-core") for name in result["environment"]["plugins"])


def test_the_best_artefact_is_the_one_with_the_lowest_loss(trained: Path) -> None:
    evaluations = [line for line in lines(trained, "val") if line["step"]]
    best = min(evaluations, key=lambda line: line["loss"]["total"])["step"]
    assert sorted(path.name for path in (trained / "artefacts").iterdir()) == [f"best-{best:06d}", "last-000004"]
    assert find(trained).name == f"best-{best:06d}"
    assert load(trained).tasks.keys() == {"semseg", "depth", "normals", "saliency"}


def test_json_is_one_object_and_logs_go_to_stderr(mtrun: Mtrun) -> None:
    outcome = mtrun(*TINY, "trainer.max_steps=1", "run_dir=run", "--json")
    assert outcome.code == 0
    assert outcome.json["run_dir"] == "run"
    assert outcome.json["metrics"]["before"] is not None
    assert "step 1/1" in outcome.err


def test_the_table_compares_with_the_untrained_model(mtrun: Mtrun) -> None:
    outcome = mtrun(*TINY, "trainer.max_steps=1", "run_dir=run")
    assert "the run is in run" in outcome.out
    assert "miou ↑" in outcome.out
    assert "rmse ↓" in outcome.out


def test_a_dry_run_takes_a_step_and_writes_nothing(mtrun: Mtrun, tmp_path: Path) -> None:
    outcome = mtrun(*TINY, "dry_run=true", "--json")
    assert outcome.code == 0
    assert outcome.json["steps"] == 1
    assert outcome.json["run_dir"] is None
    assert list(tmp_path.iterdir()) == []


def test_multirun_trains_every_combination_in_folders_of_its_own(mtrun: Mtrun, tmp_path: Path) -> None:
    words = [word for word in TINY if not word.startswith("adapter")]
    outcome = mtrun("--multirun", "adapter=mtlora,frozen", *words, "trainer.max_steps=1", "--json")
    assert outcome.code == 0, outcome.err
    runs = outcome.json["runs"]
    assert [run["adapter"] for run in runs] == ["mtlora", "frozen"]
    assert sorted(str(Path("runs") / path.name) for path in (tmp_path / "runs").iterdir()) == sorted(
        run["run_dir"] for run in runs
    )
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_two_runs_of_one_second_get_different_folders(mtrun: Mtrun) -> None:
    words = [word for word in TINY if not word.startswith("adapter")]
    outcome = mtrun("--multirun", "adapter=frozen", "seed=1,2", *words, "trainer.max_steps=1", "--json")
    first, second = (run["run_dir"] for run in outcome.json["runs"])
    assert first != second


def test_the_same_seed_gives_the_same_weights_whatever_the_workers(mtrun: Mtrun, tmp_path: Path) -> None:
    for name, workers in (("a", 0), ("b", 2)):
        outcome = mtrun(*TINY, "trainer.max_steps=3", f"run_dir={name}", f"trainer.workers={workers}")
        assert outcome.code == 0, outcome.err
    a, b = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_another_seed_gives_other_weights(mtrun: Mtrun, trained: Path, tmp_path: Path) -> None:
    mtrun(*TINY, "trainer.max_steps=4", "trainer.eval_every=2", "run_dir=other", "seed=1")
    a, b = weights(trained), weights(tmp_path / "other")
    assert not torch.equal(a["decoders.depth.narrow.0.weight"], b["decoders.depth.narrow.0.weight"])


def test_an_average_of_the_weights_is_what_is_saved(mtrun: Mtrun, tmp_path: Path) -> None:
    common = (*TINY, "trainer.max_steps=2", "trainer.eval_every=2")
    mtrun(*common, "run_dir=plain")
    outcome = mtrun(*common, "run_dir=ema", "trainer.ema=0.99", "--json")
    assert outcome.json["weights"] == {"average": "exponential", "decay": 0.99}
    plain, average = weights(tmp_path / "plain"), weights(tmp_path / "ema")
    name = "decoders.depth.narrow.0.weight"
    assert not torch.equal(plain[name], average[name])
    evaluated = mtrun("eval", "checkpoint=ema", "--json").json
    assert evaluated["metrics"] == outcome.json["metrics"]["final"]


def test_bf16_checkpointing_and_a_pass_per_task_run_together(mtrun: Mtrun) -> None:
    outcome = mtrun(
        *TINY, "trainer.max_steps=2", "trainer.precision=bf16", "trainer.checkpointing=true",
        "trainer.tasks_per_pass=1", "trainer.accumulate=2", "trainer.optimizer=adam", "trainer.schedule=linear",
        "run_dir=run", "--json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert outcome.json["steps"] == 2


def test_an_infinite_loss_ends_the_run_and_names_task_step_and_picture(mtrun: Mtrun) -> None:
    outcome = mtrun(*TINY, "trainer.epochs=1", "dataset.infinite=3", "run_dir=run", "trainer.eval_every=9")
    assert outcome.code == 5
    for word in ("task depth", "step ", "toy-3", "nothing was changed"):
        assert word in outcome.err


def test_a_step_whose_loss_is_not_finite_is_skipped_where_that_is_asked_for(mtrun: Mtrun, tmp_path: Path) -> None:
    words = (*TINY, "trainer.epochs=2", "dataset.infinite=3", "trainer.on_nonfinite=skip", "trainer.eval_every=9")
    outcome = mtrun(*words, "run_dir=run", "trainer.clip=null", "--json")
    assert outcome.code == 0, outcome.err
    assert (outcome.json["steps"], outcome.json["skipped_steps"]) == (6, 2)
    for text in ("task depth is inf", "toy-3", "The step is skipped: 1 of at most 10", "2 of at most 10"):
        assert text in outcome.err
    assert len(lines(tmp_path / "run", "train")) == 4
    outcome = mtrun(*words, "run_dir=few", "trainer.max_skips=1")
    assert outcome.code == 5
    assert "1 steps were skipped before it, which is all that trainer.max_skips=1 allows" in outcome.err


def test_a_damaged_picture_ends_the_run_with_its_name_and_no_traceback(mtrun: Mtrun) -> None:
    outcome = mtrun(*TINY, "trainer.epochs=1", "dataset.broken=2", "trainer.workers=1", "run_dir=run")
    assert outcome.code == 3
    assert "toy-2: damaged" in outcome.err
    assert "mtrun resume=run goes on" in outcome.err
    assert "Traceback" not in outcome.err


class Watcher:
    """A plugin that keeps what it is told."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, float]] = []
        self.evaluations: list[tuple[int, float]] = []
        self.folder = Path()

    @hookimpl
    def mt_step_end(self, run: Any, step: int, losses: Any) -> None:
        self.folder = run.folder
        self.steps.append((step, losses["depth"]))

    @hookimpl
    def mt_eval_end(self, run: Any, step: int, metrics: Any) -> None:
        assert run.config["dataset"]["name"] == "toy"
        self.evaluations.append((step, metrics["depth"]["rmse"]))


def test_plugins_hear_of_every_step_and_evaluation(mtrun: Mtrun) -> None:
    with plugin(watcher := Watcher(), "watcher"):
        outcome = mtrun(*TINY, "trainer.max_steps=2", "trainer.log_every=9", "trainer.eval_every=2", "run_dir=run")
    assert outcome.code == 0
    assert [step for step, _ in watcher.steps] == [1, 2]
    assert [step for step, _ in watcher.evaluations] == [0, 2]
    assert watcher.folder == Path("run")


class Failing:
    """A plugin that raises."""

    @hookimpl
    def mt_step_end(self, step: int) -> None:
        raise ValueError("no space")


def test_a_plugin_that_fails_in_a_hook_is_named(mtrun: Mtrun) -> None:
    with plugin(Failing(), "failing"):
        outcome = mtrun(*TINY, "trainer.max_steps=2", "run_dir=run")
    assert outcome.code == 6
    assert "plugin 'failing' failed in mt_step_end: ValueError: no space" in outcome.err
    assert "MT_BLOCK=failing" in outcome.err


class Killing:
    """A plugin that sends a signal to this process at the end of a step."""

    def __init__(self, number: int) -> None:
        self.number = number

    @hookimpl
    def mt_step_end(self, step: int) -> None:
        if step == 2:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_the_last_artefact_and_ends_the_run(
    mtrun: Mtrun, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    with plugin(Killing(number), "killing"):
        outcome = mtrun(*TINY, "trainer.max_steps=9", "trainer.eval_every=9", "run_dir=run")
    assert outcome.code == code
    assert "stopped after step 2, which is saved in run/artefacts" in outcome.err
    assert find(tmp_path / "run").name == "last-000002"
    assert load(tmp_path / "run").selected
    assert not (tmp_path / "run" / "result.json").exists()
