"""What can happen to one rank or to all: the run ends with the right code, and nothing that was saved is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mtrun.data import Order

from .conftest import Run, Start, Zygote
from .runs import TINY, TWO, equal, record, state, states, weights

RANDOM = (
    *TINY, "dataset.count=5", "trainer.max_steps=8", "trainer.eval_every=4", "trainer.ema=0.9", "adapter.dropout=0.2",
    "backbone.drop_path=0.2", "augment.jitter=0.2",
)  # fmt: skip
SHORT = (*TINY, "trainer.max_steps=6", "trainer.eval_every=100", "trainer.eval_before=false", "trainer.save_every=1")
CODES = {"TERM": 143, "INT": 130}


def picture_of(rank: int, step: int) -> int:
    """The training picture that a rank has at a step of two pictures, of six that there are."""
    return Order(6, 0)[2 * (step - 1) + rank]


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "first", "second"), [(1, "TERM", "INT"), (2, "INT", "TERM")])
def test_a_run_that_is_stopped_in_every_phase_ends_as_if_it_had_not_been(
    run: Run, tmp_path: Path, ranks: int, first: str, second: str
) -> None:
    last, words = ranks - 1, RANDOM if ranks == 1 else (*RANDOM, *TWO)
    run(0, *words)
    (tmp_path / "run").rename(tmp_path / "whole")

    run(CODES[first], *words, trap={"phase": "start", "do": first, "rank": last})
    assert not (tmp_path / "run").exists()
    run(CODES[second], *words, trap={"phase": "val", "do": second, "rank": last, "at": 2})
    assert states(tmp_path / "run") == ["step-000000"]
    found = run(CODES[first], "resume=run", trap={"phase": "step", "do": first, "rank": last, "at": 2})
    assert states(tmp_path / "run")[-1] == "step-000002"
    assert "stopped after step 2, which is saved in run/artefacts; mtrun resume=run goes on" in found.err
    run(CODES[second], "resume=run", trap={"phase": "train", "do": second, "rank": last, "at": 2 // ranks})
    assert states(tmp_path / "run")[-1] == "step-000002"
    run(CODES[first], "resume=run", "trainer.save_every=1", trap={"phase": "saving", "do": first, "rank": 0, "at": 3})
    assert states(tmp_path / "run")[-1] == "step-000003"
    found = run(0, "resume=run", "trainer.save_every=null")
    assert "resuming run after step 3 of 8" in found.err

    assert equal(state(tmp_path / "run", 8), state(tmp_path / "whole", 8))
    assert record(tmp_path / "run") == record(tmp_path / "whole")
    assert equal(weights(tmp_path / "run"), weights(tmp_path / "whole"))


def test_a_run_of_two_ranks_is_stopped_while_one_of_them_plans(run: Run, tmp_path: Path) -> None:
    found = run(143, *TINY, *TWO, "adapter=tglora", trap={"phase": "train", "do": "TERM"})
    assert found.errors == ["mtrun: error: terminated"]
    assert not (tmp_path / "run").exists()


def test_a_rank_or_its_launcher_that_is_killed_takes_all_processes_with_it(
    run: Run, start: Start, zygote: Zygote, tmp_path: Path
) -> None:
    words = (*SHORT, *TWO, "trainer.workers=1")
    found = run(137, *words, trap={"phase": "step", "do": "KILL", "rank": 1, "at": 3})
    assert len(found.errors) == 1
    assert "rank 1 was killed by SIGKILL; was memory short? The run has ended" in found.errors[0]
    assert "Traceback" not in found.err
    assert states(tmp_path / "run") == ["step-000001", "step-000002"]

    reached = tmp_path / "reached"
    held = start("resume=run", trap={"phase": "step", "do": "hang", "rank": 1, "at": 2, "reached": str(reached)})
    while not reached.exists():
        assert held.zygote.ask(pid=held.pid) is None, held.err
        time.sleep(0.05)
    assert len(zygote.alive()) == 5, "a launcher, two ranks, two workers"
    other = start("resume=run")
    assert other.wait() == 2
    assert len(other.errors) == 1
    assert "run is being trained by process" in other.errors[0]
    os.kill(held.pid, signal.SIGKILL)
    assert held.wait() == -signal.SIGKILL
    zygote.assert_nobody_is_left()
    assert states(tmp_path / "run") == ["step-000002", "step-000003"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(folder)], check=False)
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_bad_picture_a_failing_plugin_and_a_full_disk_end_both_ranks_with_one_message(
    run: Run, small_disk: Path
) -> None:
    folder = small_disk / "run"
    resume, place = f"resume={folder}", f"run_dir={folder}"
    broken = picture_of(1, step=3)
    found = run(3, *SHORT, *TWO, place, f"dataset.broken={broken}")
    assert found.errors == [f"mtrun: error: toy-{broken}: damaged; draw it again"]
    assert states(folder) == ["step-000001", "step-000002"]

    found = run(6, resume, "dataset.broken=-1", env={"FAILING_HOOK": "3"})
    assert len(found.errors) == 1
    assert "ZeroDivisionError: of a plugin" in found.errors[0]
    assert states(folder) == ["step-000002", "step-000003"]

    before = {path: path.read_bytes() for path in (folder / "state").rglob("*") if path.is_file()}
    room = shutil.disk_usage(small_disk).free - 150_000
    (small_disk / "ballast").write_bytes(b"x" * room)
    found = run(4, resume)
    assert len(found.errors) == 1
    assert f"{folder} cannot be written: No space left on device; make room, or mend it" in found.errors[0]
    assert {path: path.read_bytes() for path in (folder / "state").rglob("*") if path.is_file()} == before

    (small_disk / "ballast").unlink()
    found = run(0, resume, "--json")
    assert json.loads(found.out)["steps"] == 6
    assert found.out.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 3])
def test_an_infinite_label_of_one_rank_is_skipped_by_both_in_step_and_then_stops_them(
    run: Run, tmp_path: Path, stage: int
) -> None:
    """It comes once in each epoch of three steps."""
    bad = picture_of(1, step=2)
    words = (*SHORT, *TWO, f"engine.stage={stage}", f"dataset.infinite={bad}", "trainer.keep_states=9")
    found = run(5, *words, "trainer.ema=0.9", "trainer.on_nonfinite=skip", "trainer.max_skips=1")
    assert "warning: step 2: the loss of task depth is inf" in found.err
    assert f"on the pictures toy-{bad}; nothing was changed." in found.err
    assert "The step is skipped: 1 of at most 1" in found.err
    assert len(found.errors) == 1
    assert "the loss of task depth is" in found.errors[0]
    assert f"toy-{bad}; nothing was changed" in found.errors[0]
    assert "which is all that trainer.max_skips=1 allows" in found.errors[0]
    assert equal(state(tmp_path / "run", 1), state(tmp_path / "run", 2))
    assert not equal(state(tmp_path / "run", 2), state(tmp_path / "run", 3))
