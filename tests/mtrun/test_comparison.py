"""Comparing runs: which are one row, which must not stand in one table, gains, and what is refused."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path

import pytest

from mt_core.deltas import delta_b, delta_m
from mt_core.errors import CheckpointError, ConfigError
from mtrun.comparison import compare_runs
from mtrun.comparison.rows import Statistic
from mtrun.comparison.tables import Table

from .finished_runs import CONFIG, RESULT, finished, single


def metrics(miou: float, angle: float) -> dict[str, object]:
    return {"best": {"semseg": {"miou": miou}, "normals": {"mean_angle": angle}}}


def only_table(*folders: Path, **options: object) -> Table:
    (table,) = compare_runs(folders, **options).tables  # type: ignore[arg-type]
    return table


def test_runs_that_differ_only_in_seed_are_one_row(tmp_path: Path) -> None:
    mious = [60.0, 63.0, 69.0]
    runs = [finished(tmp_path / f"s{i}", seed=i, metrics=metrics(m, 16)) for i, m in enumerate(mious)]
    other = finished(tmp_path / "other", {"adapter": {"rank": 64}})
    table = only_table(*runs, other)
    assert [(row.name, row.n) for row in table.rows] == [("mtlora, rank=16", 3), ("mtlora, rank=64", 1)]
    found = table.rows[0].metric("semseg", "miou")
    assert (found.mean, found.n) == (64, 3)
    assert found.deviation == pytest.approx(statistics.stdev(mious))
    assert math.isnan(table.rows[1].metric("semseg", "miou").deviation)


def test_where_a_run_ran_and_what_it_logged_makes_no_other_row(tmp_path: Path) -> None:
    a = finished(tmp_path / "a", {"run_dir": "a", "trainer": {"workers": 0}})
    b = finished(tmp_path / "b", {"run_dir": "b", "trainer": {"workers": 4}, "dataset": {"root": "/mnt"}}, seed=1)
    assert [row.n for row in only_table(a, b).rows] == [2]


def test_the_same_run_twice_is_one_and_the_same_seed_twice_is_refused(tmp_path: Path) -> None:
    a, b = finished(tmp_path / "a"), finished(tmp_path / "b")
    (tmp_path / "again").symlink_to(a)
    assert [row.n for row in only_table(a, tmp_path / "again", a).rows] == [1]
    with pytest.raises(ConfigError, match=r"a and .*b have the same configuration and the same seed \(0\)"):
        compare_runs([a, b])


def test_a_number_that_is_missing_enters_no_mean(tmp_path: Path) -> None:
    a = finished(tmp_path / "a", metrics={"best": {"semseg": {"miou": None}}})
    b = finished(tmp_path / "b", seed=1)
    found = only_table(a, b).rows[0].metric("semseg", "miou")
    assert (found.mean, found.n) == (68, 1)
    assert Statistic.of([math.nan]).n == 0


def test_single_task_runs_of_one_configuration_are_one_row(tmp_path: Path) -> None:
    runs = [
        single(tmp_path / f"{task}{seed}", task, seed, **{name: value + seed})
        for seed in (0, 1)
        for task, name, value in (("semseg", "miou", 67.0), ("normals", "mean_angle", 18.0))
    ]
    (row,) = only_table(*runs).rows
    assert (row.name, row.n) == ("full, one model per task", 2)
    assert row.scores == {"semseg": {"miou": 67.5}, "normals": {"mean_angle": 18.5}}
    assert row.cost("trainable").mean == 4_000_000  # of two models
    assert row.cost("gmacs_full").mean == 50
    assert row.cost("host_mib").mean == 1000  # one model is trained at a time


def test_a_seed_that_lacks_a_task_has_no_gain_and_no_cost(tmp_path: Path) -> None:
    runs = [
        single(tmp_path / "a", "semseg", 0, miou=67.0),
        single(tmp_path / "b", "normals", 0, mean_angle=18.0),
        single(tmp_path / "c", "semseg", 1, miou=69.0),
    ]
    (row,) = only_table(*runs, baseline=[str(run) for run in runs]).rows
    assert (row.n, row.metric("semseg", "miou").n, row.delta_m.n, row.cost("trainable").n) == (2, 2, 1, 1)
    assert row.note == "1 of 2 seeds lack a task"


@pytest.mark.parametrize("protocol", ["astmt", "mtsam"])
def test_gains_are_those_of_the_definition_for_each_seed(tmp_path: Path, protocol: str) -> None:
    singles = [
        single(tmp_path / "a", "semseg", protocol=protocol, miou=60.0, pixel_accuracy=80.0),
        single(tmp_path / "b", "normals", protocol=protocol, mean_angle=20.0),
    ]
    runs = [finished(tmp_path / f"s{i}", seed=i, metrics=metrics(66 + i, 15), protocol=protocol) for i in range(3)]
    table = only_table(*runs, baseline=[str(run) for run in singles])
    ours, base = table.rows
    assert base.is_baseline
    assert base.delta_m.mean == base.delta_b.mean == 0
    scores = [member.scores for member in ours.members]
    ways = RESULT["directions"]
    assert ours.delta_m.mean == pytest.approx(statistics.fmean(delta_m(s, base.scores, ways) for s in scores))
    printed = {"astmt": delta_m, "mtsam": delta_b}[protocol]  # the papers of ASTMT print one metric of a task
    assert ours.delta_b.mean == pytest.approx(statistics.fmean(printed(s, base.scores, ways) for s in scores))
    assert ours.delta_m.mean == pytest.approx(((67 - 60) / 60 + (20 - 15) / 20) / 2 * 100)
    assert ours.delta_m.deviation == pytest.approx(100 / 60 / 2)
    assert table.baseline == "full, one model per task"


def test_one_seed_of_a_baseline_stands_for_all_of_its_row(tmp_path: Path) -> None:
    runs = [finished(tmp_path / f"s{i}", seed=i, metrics=metrics(60 + 2 * i, 16)) for i in range(3)]
    table = only_table(*runs, baseline=[str(runs[0])])
    assert table.baseline == "mtlora, mean of 3 seeds"
    assert table.rows[0].delta_m.mean == pytest.approx(0)


def test_two_configurations_are_no_baseline_for_the_same_task(tmp_path: Path) -> None:
    a, b = finished(tmp_path / "a"), finished(tmp_path / "b", {"adapter": {"rank": 64}})
    with pytest.raises(ConfigError, match="both have task semseg, but are different configurations; give runs of one"):
        compare_runs([], baseline=[str(a), str(b)])


def test_a_row_that_lacks_a_task_has_no_overall_gain(tmp_path: Path) -> None:
    whole, part = finished(tmp_path / "a"), single(tmp_path / "b", "semseg", miou=70.0)
    table = only_table(whole, part, baseline=[str(whole)])
    assert [row.delta_m.n for row in table.rows] == [1, 0]
    table = only_table(whole, part, baseline=[str(part)])
    assert [row.delta_m.n for row in table.rows] == [0, 0]
    assert table.notes == ("No overall gain: the baseline full has no task normals.",)


@pytest.mark.parametrize(
    ("config", "result", "why"),
    [
        ({}, {"protocol": "mtan"}, "protocol astmt there, mtan here"),
        ({"dataset": {"name": "nyud"}}, {"dataset": "nyud"}, "dataset pascal there, nyud here"),
        ({}, {"image_size": [224, 224]}, "image_size 448 x 448 there, 224 x 224 here"),
        ({}, {"tasks": {"semseg": 59}}, "task semseg with 21 channels there, 59 here"),
        ({}, {"images": 10}, "measured on 5105 pictures there, on 10 here"),
        ({"dataset": {"val": 4}}, {}, "dataset.val=None there, 4 here"),
        ({"trainer": {"eval_batches": 2}}, {}, "trainer.eval_batches=None there, 2 here"),
    ],
)
def test_what_must_not_be_compared_is_in_separate_tables(
    tmp_path: Path, config: dict[str, object], result: dict[str, object], why: str
) -> None:
    a, b = finished(tmp_path / "a"), finished(tmp_path / "b", config, seed=1, **result)
    first, second = compare_runs([a, b], baseline=[str(a)]).tables
    assert (first.apart, second.apart) == ("", why)
    assert first.baseline
    assert not second.baseline
    assert f"protocol {second.protocol}" in second.title


def test_final_weights_are_compared_when_asked_for(tmp_path: Path) -> None:
    run = finished(tmp_path / "a")
    assert only_table(run, weights="final").rows[0].scores["semseg"]["miou"] == 66
    assert only_table(run).rows[0].scores["semseg"]["miou"] == 68


def test_rows_can_be_named(tmp_path: Path) -> None:
    a, b = finished(tmp_path / "a"), finished(tmp_path / "b", {"adapter": {"rank": 64}})
    assert [row.name for row in only_table(a, b, names={str(b): "Ours"}).rows] == ["mtlora, rank=16", "Ours"]


def test_published_rows_stand_beside_runs_that_are_comparable(tmp_path: Path) -> None:
    table = only_table(finished(tmp_path / "a"), papers=["mtlora:table1"], baseline=["mtlora:table1"])
    ours, *theirs = table.rows
    assert not ours.source
    assert all(row.source == "MTLoRA, Table 1" and row.n == 0 for row in theirs)
    assert ours.delta_m.mean == pytest.approx(100 * ((68 - 67.21) / 67.21 + (17.97 - 16) / 17.97) / 2)
    assert ours.delta_b.mean == ours.delta_m.mean  # the paper prints one metric of each task
    assert table.baseline == "Single Task of mtlora:table1, published"
    assert "Published numbers, not measured here." in table.notes[0]
    assert theirs[0].cost("trainable").mean == 112.62e6


def test_published_rows_that_are_not_comparable_are_apart(tmp_path: Path) -> None:
    run = finished(tmp_path / "a", {"dataset": {"name": "rooms"}}, dataset="rooms")
    _, table = compare_runs([run], papers=["mtlora:table1"]).tables
    assert table.apart == "dataset pascal in the paper, rooms in the runs"
    assert not table.measured
    baseline = next(row for row in table.rows if row.is_baseline)
    assert baseline.name == "Single Task"
    assert baseline.delta_m.mean == 0
    with pytest.raises(ConfigError, match="in the paper, rooms in the runs; train on what the paper did, or leave it"):
        compare_runs([run], baseline=["mtlora:table1"])


def test_a_published_row_says_when_its_delta_does_not_follow() -> None:
    table = only_table(papers=["mtlora:table1"])
    notes = {row.name: (row.printed_gain, row.note) for row in table.rows}
    assert notes["Polyhistor"] == ("\u0394m +2.34", "the paper prints \u0394m +2.34, its own metrics give +1.80")
    assert notes["LoRA"] == ("\u0394m -2.17", "")


def test_a_paper_without_metrics_is_shown_and_is_no_baseline() -> None:
    table = only_table(papers=["mtsam:table1"])
    assert table.rows[-1].printed_gain == "\u0394b +23.93"
    assert table.rows[-1].cost("mib").mean == 59.59
    with pytest.raises(ConfigError, match="the metrics of its baseline are not known; choose another table"):
        compare_runs([], papers=["mtsam:table1"], baseline=["mtsam:table1"])


def test_a_baseline_is_runs_or_one_table(tmp_path: Path) -> None:
    run = finished(tmp_path / "a")
    with pytest.raises(ConfigError, match="expected folders of runs, or one table of a paper"):
        compare_runs([run], baseline=[str(run), "mtlora:table1"])
    other = finished(tmp_path / "b", tasks={"depth": 1}, **depth())
    with pytest.raises(ConfigError, match="the paper has no task depth"):
        compare_runs([other], baseline=["mtlora:table1"])


def depth() -> dict[str, object]:
    return {"metrics": {"best": {"depth": {"rmse": 0.5}}}, "directions": {"depth": {"rmse": "lower"}}}


def test_nothing_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing to compare: give folders of runs, or --paper PAPER:TABLE"):
        compare_runs([])


def test_what_an_older_version_did_not_record_is_not_known(tmp_path: Path) -> None:
    run = finished(tmp_path / "a")
    new = json.loads((run / "result.json").read_text())
    kept = ("protocol", "dataset", "tasks", "metrics", "directions")
    (run / "result.json").write_text(json.dumps({key: new[key] for key in kept}))
    (run / "config.yaml").unlink()
    (row,) = only_table(run).rows
    assert (row.name, row.costs, row.backbone) == ("a", {}, "")


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ("{", "result.json cannot be read"),
        ("[]", "holds no result"),
        ({**RESULT, "metrics": {}}, "metrics.best is missing: the run was never evaluated"),
        ({**RESULT, "metrics": {"best": {"semseg": {}}}}, "metrics.best.semseg holds no metric"),
        ({**RESULT, "metrics": {"best": {"semseg": {"miou": "68"}}}}, "semseg.miou is '68', expected a number"),
        ({**RESULT, "metrics": {"best": {"semseg": {"miou": 10**400}}}}, "semseg.miou is too large for a number"),
        ({**RESULT, "directions": {}}, "semseg is missing, or no object"),
        ({**RESULT, "directions": {"semseg": {}, "normals": {}}}, "directions.semseg.miou is neither 'higher' nor"),
        ({**RESULT, "protocol": ""}, "protocol is missing; without it nothing can be compared"),
        ({**RESULT, "seed": "x"}, "seed is 'x', expected a whole number"),
        ({**RESULT, "image_size": 448}, "image_size is 448, expected .height, width."),
    ],
)
def test_a_damaged_result_is_refused(tmp_path: Path, result: object, message: str) -> None:
    run = finished(tmp_path / "a")
    (run / "result.json").write_text(result if isinstance(result, str) else json.dumps(result))
    with pytest.raises(CheckpointError, match=message) as caught:
        compare_runs([run])
    if not isinstance(result, str):
        assert "restore the file, or leave the run out" in str(caught.value)


def test_a_run_that_is_not_done_or_not_there_is_refused(tmp_path: Path) -> None:
    run = finished(tmp_path / "a")
    (run / "result.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no result.json: it is not done; mtrun resume=.* goes on with it"):
        compare_runs([run])
    (run / "config.yaml").unlink()
    with pytest.raises(CheckpointError, match=r"has no result.json: it holds no run"):
        compare_runs([run])
    with pytest.raises(CheckpointError, match=r"no such folder; expected the folder of a run, which holds result.json"):
        compare_runs([tmp_path / "none"])


def test_the_configuration_of_the_tests_is_one_that_a_run_can_have() -> None:
    assert {"adapter", "backbone", "decoder", "dataset", "engine"} <= CONFIG.keys()
