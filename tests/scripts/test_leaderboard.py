"""The leaderboard in its smallest form: it runs, goes on where it was, and its page says what its runs say."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # `scripts` is a folder of the repository, not a package that is installed

from scripts.leaderboard import __main__ as leaderboard  # noqa: E402
from scripts.leaderboard import page as pages  # noqa: E402
from scripts.leaderboard import running  # noqa: E402
from scripts.leaderboard.settings import METHODS, Run, Settings  # noqa: E402

from mt_core.errors import ConfigError, MTError  # noqa: E402
from mt_core.published import published  # noqa: E402
from mt_datasets.rooms import Frame, dataset, frame  # noqa: E402
from mtrun.comparison.rows import Statistic  # noqa: E402

SMALLEST = ["--steps", "2", "--seeds", "1", "--train", "8", "--val", "4", "--pretraining-steps", "2"]


class Made(NamedTuple):
    folder: Path
    page: Path
    picture: Frame  # the first one, after two runs have trained on it


def started(root: Path, *words: str) -> int:
    return leaderboard.main([*SMALLEST, "--folder", str(root / "runs"), "--page", str(root / "page.md"), *words])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The smallest leaderboard, whose runs are made in this process."""
    root = tmp_path_factory.mktemp("leaderboard")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "finish_all", lambda runs, jobs, said: [said(running.finish(run)) for run in runs])
        patch.setattr(dataset, "frame", frame)  # put back what `prepare` replaces
        assert started(root, "--methods", "frozen", "mtlora") == 0
        return Made(root / "runs", root / "page.md", dataset.frame(0, 0, 48, 64))


def test_started_again_it_skips_what_is_done_and_writes_the_same_page(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = made.page.read_text()
    monkeypatch.setattr(running, "main", lambda words: pytest.fail("a run was made again"))
    done = [running.finish(run) for _, run in Settings(methods=("frozen", "mtlora"), seeds=1).runs(made.folder)]
    assert done == ["was done", "was done"]
    monkeypatch.setattr(running, "finish_all", lambda runs, jobs, said: None)
    assert started(made.folder.parent, "--methods", "frozen", "mtlora") == 0
    assert made.page.read_text() == before


def test_an_interrupted_run_is_resumed_from_its_state_and_ends_like_the_others(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(made.folder / "frozen-seed0", ())
    result = json.loads((run.folder / "result.json").read_text())
    spent = running.cpu_seconds(run.folder)
    (run.folder / "result.json").unlink()
    said = running.finish(run)
    again = json.loads((run.folder / "result.json").read_text())
    assert said.startswith("resumed")
    assert again["metrics"]["final"] == result["metrics"]["final"]
    assert running.cpu_seconds(run.folder) > spent


def test_a_run_without_a_usable_state_is_made_anew(made: Made) -> None:
    ((_, run),) = Settings(2, 1, 8, 4, 2, methods=("frozen",)).runs(made.folder)
    result = json.loads((run.folder / "result.json").read_text())
    (run.folder / "result.json").unlink()
    for state in (run.folder / "state").glob("*"):
        for file in state.glob("*"):
            file.write_bytes(b"")
    assert running.finish(run).startswith("trained")
    again = json.loads((run.folder / "result.json").read_text())
    assert again["metrics"]["final"] == result["metrics"]["final"]


def test_a_run_that_fails_is_named_with_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(running.RunFailedError, match=r"(?s)broken ended with exit code 2.*no_such_adapter"):
        running.finish(Run(tmp_path / "broken", ("adapter=no_such_adapter",)))


def test_the_runs_start_from_the_pretrained_backbone_and_differ_in_nothing_but_their_method(made: Made) -> None:
    frozen, mtlora = (
        json.loads((made.folder / f"{key}-seed0" / "result.json").read_text()) for key in ("frozen", "mtlora")
    )
    assert frozen["backbone_init"] == mtlora["backbone_init"] == "pretrained"
    assert frozen["base_sha256"] == mtlora["base_sha256"]
    for same in ("steps", "tasks", "image_size", "images", "decoder", "seed", "protocol"):
        assert frozen[same] == mtlora[same], same


def test_pictures_that_are_drawn_once_are_left_as_they_were(made: Made) -> None:
    fresh = frame(0, 0, 48, 64)
    for name in ("image", "semseg", "depth", "normals"):
        assert np.array_equal(getattr(made.picture, name), getattr(fresh, name)), name


def test_a_folder_holds_the_runs_of_one_budget(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    assert started(made.folder.parent, "--lr", "0.1") == ConfigError.exit_code
    assert "holds runs made with" in capsys.readouterr().err


def test_the_page_has_a_line_per_method_with_what_its_run_measured(made: Made) -> None:
    text = made.page.read_text()
    for key in ("frozen", "mtlora"):
        metrics = json.loads((made.folder / f"{key}-seed0" / "result.json").read_text())["metrics"]["final"]
        (line,) = re.findall(rf"^\| {METHODS[key].label} \| ([\d.]+) \|.*$", text, re.MULTILINE)
        assert float(line) == pytest.approx(metrics["semseg"]["miou"], rel=1e-3)
    assert "--methods frozen mtlora" in text


def test_every_claim_is_of_two_rows_whose_gains_the_paper_prints_in_that_order() -> None:
    for claim in pages.CLAIMS:
        assert {claim.better, claim.worse} <= METHODS.keys()
        assert set(claim.rows) <= {row.method for row in published(claim.table).rows}
        assert claim.printed > 0, claim
    assert next(c.printed for c in pages.CLAIMS if c.better == "tglora") == pytest.approx(4.50 - 2.55)


def test_an_ordering_is_decided_beyond_two_pooled_deviations_and_never_by_one_seed() -> None:
    def row(mean: float, deviation: float) -> Statistic:
        return Statistic(mean, deviation, 3)

    pooled = math.sqrt((1**2 + 3**2) / 2)
    assert pages.spread(row(0, 1), row(0, 3)) == pytest.approx(pooled)
    assert pages.verdict(row(2.01 * pooled, 1), row(0, 3)) == "holds"
    assert pages.verdict(row(0, 1), row(2.01 * pooled, 3)) == "reversed"
    assert pages.verdict(row(1.99 * pooled, 1), row(0, 3)) == "not decided"
    assert pages.verdict(row(9, math.nan), row(0, math.nan)) == "not decided"


@pytest.mark.slow
def test_processes_make_the_runs_and_stop_at_the_first_that_fails(made: Made) -> None:
    said: list[str] = []
    done = [Run(made.folder / f"{key}-seed0", ()) for key in ("frozen", "mtlora")]
    running.finish_all(done, 2, said.append)
    assert {line.partition(": ")[2] for line in said} == {"frozen-seed0 was done", "mtlora-seed0 was done"}
    with pytest.raises(MTError, match="ended with exit code 2"):
        running.finish_all([Run(made.folder / "broken", ("adapter=no_such_adapter",))], 1, said.append)
