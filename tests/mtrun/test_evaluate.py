"""`mtrun eval` and `mtrun params`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from mt_core.artefact import load
from mt_core.augment import evaluation_transform
from mt_core.protocols import protocol
from mt_core.task import Task
from mt_core.tasks import Segmentation
from mtrun.data import evaluation_batches
from mtrun.evaluation import Evaluation, departures_of, directions, evaluate
from mtrun.recipe import RunningOptions

from .conftest import Mtrun
from .toy import Toy

CPU = torch.device("cpu")


def test_eval_of_a_run_repeats_the_runs_own_result_and_writes_it_beside(
    mtrun: Mtrun, trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained, tmp_path / "run")
    outcome = mtrun("eval", "checkpoint=run", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["metrics"] == json.loads((trained / "result.json").read_text())["metrics"]["best"]
    assert outcome.json["written"] == "run/eval-1.json"
    assert json.loads((tmp_path / "run" / "eval-1.json").read_text())["metrics"] == outcome.json["metrics"]
    assert mtrun("eval", "checkpoint=run", "--json").json["written"] == "run/eval-2.json"


def test_the_configuration_of_an_eval_is_that_of_the_run(mtrun: Mtrun, trained: Path) -> None:
    outcome = mtrun("eval", f"checkpoint={trained}", "--cfg", "job")
    assert outcome.code == 0
    assert "  name: toy\n" in outcome.out
    assert "  batch_size: 2\n" in outcome.out


def test_a_dry_eval_writes_nothing(mtrun: Mtrun, trained: Path) -> None:
    before = sorted(trained.rglob("*"))
    assert mtrun("eval", f"checkpoint={trained}", "dry_run=true").code == 0
    assert sorted(trained.rglob("*")) == before


def test_an_artefact_alone_needs_a_data_set(mtrun: Mtrun, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(next((trained / "artefacts").glob("best-*")), tmp_path / "artefact")
    outcome = mtrun("eval", "checkpoint=artefact")
    assert outcome.code == 2
    assert "dataset has no value; give dataset=VALUE" in outcome.err
    outcome = mtrun("eval", "checkpoint=artefact", "dataset=toy", "trainer.workers=0")
    assert outcome.code == 0, outcome.err
    assert "rmse ↓" in outcome.out


def test_tasks_and_data_set_can_be_overridden(mtrun: Mtrun, trained: Path) -> None:
    outcome = mtrun("eval", f"checkpoint={trained}", "tasks=[depth]", "dataset.count=3", "dry_run=true", "--json")
    assert outcome.json["metrics"].keys() == {"depth"}
    assert outcome.json["images"] == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("tasks=[flow]",), "unknown task 'flow'"),
        (("tasks=[]",), "tasks is empty"),
        (("tasks=[semseg:2]",), "predicts segmentation with 3 channels"),
        (("dataset=nyud", "tasks=[semseg]"), "with 3 channels, data set nyud has segmentation with 40"),
        (("dataset=nyud", "tasks=[saliency]"), "unknown task 'saliency'"),
        (("adapter=frozen",), "mtrun eval has no option 'adapter'"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(
    mtrun: Mtrun, trained: Path, words: Sequence[str], message: str
) -> None:
    outcome = mtrun("eval", f"checkpoint={trained}", *words)
    assert outcome.code == 2
    assert message in outcome.err


def test_metrics_equal_those_of_all_pictures_at_once(trained: Path) -> None:
    model = load(trained)
    tasks: list[Task] = list(model.tasks.values())
    samples = Toy(count=5).split("val", tasks)
    options = RunningOptions(batch_size=2, workers=0)
    batches = list(evaluation_batches(samples, evaluation_transform((32, 40)), tasks, options, CPU))
    found = evaluate(model, batches, protocol("astmt"), CPU, pictures=3)
    predictions = [model.predict(batch.images)["depth"] for batch in batches]
    truth = torch.cat([batch.labels["depth"] for batch in batches])
    rmse = (torch.cat(predictions).double() - truth).square().mean().sqrt()
    assert found.metrics["depth"]["rmse"] == pytest.approx(float(rmse), rel=1e-6)
    assert found.images == 5
    assert [picture.id for picture in found.pictures] == ["toy-0", "toy-1", "toy-2"]
    assert next(iter(found.metrics["normals"])) == "mean_angle"


def test_the_loss_is_a_mean_over_annotated_pictures(trained: Path) -> None:
    model = load(trained)
    tasks: list[Task] = list(model.tasks.values())
    samples = Toy(count=3).split("val", tasks)
    options = RunningOptions(batch_size=1, workers=0)
    batches = list(evaluation_batches(samples, evaluation_transform((32, 40)), tasks, options, CPU))
    alone = [evaluate(model, [batch], protocol("astmt"), CPU).losses["depth"] for batch in batches]
    batches[0].labels["depth"].zero_()
    batches[0].present["depth"][0] = False
    for batch in batches:
        batch.present["normals"][0] = False
    found = evaluate(model, batches, protocol("astmt"), CPU)
    assert found.losses["depth"] == pytest.approx((alone[1] + alone[2]) / 2)
    assert found.losses["normals"] != found.losses["normals"]
    assert found.objective({"semseg": 0, "depth": 2, "normals": 9, "saliency": 0}) == 2 * found.losses["depth"]


def test_nothing_annotated_at_all_is_no_good_result() -> None:
    assert Evaluation({}, {"depth": float("nan")}, images=0).objective({"depth": 1.0}) == float("inf")


def test_every_metric_has_a_direction(trained: Path) -> None:
    found = directions(protocol("astmt"), load(trained).tasks.values())
    assert found["saliency"]["max_miou"] == "higher"
    assert found["normals"]["mean_angle"] == "lower"


@pytest.mark.parametrize("name", ["mtan", "mtsam"])
def test_a_model_is_measured_by_another_protocol(mtrun: Mtrun, trained: Path, name: str) -> None:
    outcome = mtrun(
        "eval", f"checkpoint={trained}", f"protocol={name}", "tasks=[semseg,depth,normals]", "slow=true",
        "dry_run=true", "--json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    found = outcome.json
    assert (found["protocol"], found["departures"]) == (name, [])
    assert list(found["metrics"]["depth"])[:2] == ["abs_err", "rel_err"]
    assert list(found["metrics"]["normals"])[:2] == ["mean_angle", "median_angle"]
    assert found["directions"]["normals"]["within_11_25"] == "higher"


def test_a_departure_from_the_papers_is_said(caplog: pytest.LogCaptureFixture) -> None:
    found = departures_of(protocol("mtan"), "nyuv2", [Segmentation("semseg", 40)], (288, 384))
    assert found == ["protocol mtan publishes 13 classes of semseg on nyuv2, this run has 40"]
    assert f"{found[0]}; the numbers are not comparable" in caplog.text


@pytest.mark.parametrize(("adapter", "rank", "trainable"), [("mtlora", 16, 4_953_146), ("mtlora_plus", 4, 2_573_114)])
def test_params_counts_what_the_paper_prints(mtrun: Mtrun, adapter: str, rank: int, trainable: int) -> None:
    """MTLoRA, Table 1."""
    outcome = mtrun(
        "params", f"adapter={adapter}", f"adapter.rank={rank}", "backbone=swin_tiny", "dataset=pascal",
        "tasks=[semseg,human_parts,saliency,normals]", "--json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    found = outcome.json
    assert found["trainable"] == trainable
    assert found["live"] < trainable
    assert {"published", "full"} <= found["gmacs"].keys()


def test_params_needs_neither_data_nor_a_folder(mtrun: Mtrun, tmp_path: Path) -> None:
    outcome = mtrun("params", "backbone=swin_nano", "dataset=nyud", "tasks=[semseg:7,depth]", "image_size=[64,64]")
    assert outcome.code == 0, outcome.err
    assert "decoder.semseg" in outcome.out
    assert "all, frozen too" in outcome.out
    assert list(tmp_path.iterdir()) == []
