"""The same command line, whoever starts the ranks: mtrun itself, srun, torchrun, the `deepspeed` launcher."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from mtrun.launching import _free_port

from .conftest import Run, Running, Start
from .runs import TINY, states

DEEPSPEED = ("engine=deepspeed", "engine.stage=2")
ONE_STEP = (*TINY, *DEEPSPEED, "trainer.max_steps=1", "trainer.eval_before=false")


def srun(start: Start, *words: str, trap: Mapping[str, object] | None = None, tasks: int = 2) -> list[Running]:
    """What srun starts: a process a task, with variables that say which one it is."""
    common = {
        "SLURM_JOB_ID": "123", "SLURM_STEP_ID": "0", "SLURM_NTASKS": str(tasks), "SLURM_STEP_NODELIST": "",
        "SLURM_STEP_TASKS_PER_NODE": str(tasks), "MASTER_PORT": str(_free_port()),
    }  # fmt: skip
    return [
        start(*words, trap=trap, env={**common, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)})
        for rank in range(tasks)
    ]


def test_the_command_line_of_one_process_works_under_srun(start: Start, tmp_path: Path) -> None:
    ranks = srun(start, *ONE_STEP, "--json")
    assert [rank.wait() for rank in ranks] == [0, 0], ranks[0].err
    assert json.loads(ranks[0].out)["engine"]["ranks"] == 2
    assert ranks[0].out.count("\n") == 1
    assert ranks[1].out == ranks[1].err == ""
    assert states(tmp_path / "run") == ["step-000001"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((*ONE_STEP, "adapter=none"), 2, "adapter 'none' is not installed"),
        ((*ONE_STEP, "launch.ranks=3"), 2, "launch.ranks=3, but 2 ranks were started already; leave launch.ranks away"),
        ((*ONE_STEP, "engine=torch", "~engine.stage"), 2, "engine"),
        ((*ONE_STEP, "trainer.batch_size=3"), 2, "trainer.batch_size=3 is for all ranks together"),
        ((*ONE_STEP, "adapter.rank=0"), 2, "rank=0"),
        (("predict", "checkpoint=run", "images=x"), 2, "mtrun predict is one process, and this is rank 0 of 2"),
        (("resume=nowhere",), 4, "resume=nowhere: no run there"),
        ((*ONE_STEP, "dataset.count=0"), 3, "has no picture"),
    ],
    ids=lambda value: value[-1] if isinstance(value, tuple) else "",
)
def test_what_cannot_be_is_said_once(start: Start, words: tuple[str, ...], code: int, message: str) -> None:
    ranks = srun(start, *words)
    assert [rank.wait() for rank in ranks] == [code, code], [rank.err for rank in ranks]
    errors = [error for rank in ranks for error in rank.errors]
    assert len(errors) == 1, errors
    assert message in errors[0]
    assert not any("Traceback" in rank.err for rank in ranks)


def test_ranks_by_itself_are_refused_where_the_engine_has_one_process(run: Run) -> None:
    found = run(2, *TINY, "launch.ranks=2")
    assert len(found.errors) == 1
    assert "engine=deepspeed" in found.errors[0]


@pytest.mark.slow
def test_a_sweep_trains_every_combination_on_two_ranks(run: Run, tmp_path: Path) -> None:
    words = [word for word in ONE_STEP if word != "run_dir=run"]
    found = run(0, "-m", *words, "launch.ranks=2", "trainer.lr=1e-3,1e-4", "--json")
    runs = json.loads(found.out)["runs"]
    assert [each["engine"]["ranks"] for each in runs] == [2, 2]
    assert len({each["run_dir"] for each in runs}) == 2


ROOMS = (
    "adapter=mtlora", "adapter.rank=2", "backbone=swin_nano", "decoder=hrnet", "decoder.expansion=1", "dataset=rooms",
    "dataset.train=4", "dataset.val=2", "image_size=[32,32]", "tasks=[depth]", "trainer.batch_size=2",
    "trainer.workers=0", "trainer.panels=0", "trainer.device=cpu", "trainer.eval_before=false", "run_dir=run",
)  # fmt: skip


def real(tmp_path: Path, *command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command], cwd=tmp_path, env={**os.environ, "DS_ACCELERATOR": "cpu"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.slow
def test_ranks_that_mtrun_starts_are_stopped_and_go_on_under_torchrun_and_the_deepspeed_launcher(
    tmp_path: Path,
) -> None:
    """None of these processes is forked from one that has imported everything."""
    process = real(tmp_path, "-m", "mtrun", *ROOMS, *DEEPSPEED, "launch.ranks=2", "trainer.max_steps=1000")
    metrics = tmp_path / "run" / "metrics.jsonl"
    while process.poll() is None and not (metrics.is_file() and metrics.stat().st_size):
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 143, err
    (saved,) = states(tmp_path / "run")[-1:]
    step = int(saved.removeprefix("step-"))

    launcher = ("-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={_free_port()}", "-m", "mtrun")
    words = ("resume=run", "launch.ranks=1", "--json")
    process = real(tmp_path, *launcher, *words, f"trainer.max_steps={step + 1}")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert json.loads(out)["steps"] == step + 1

    launcher = ("-m", "deepspeed.launcher.runner", "--num_gpus=2", f"--master_port={_free_port()}", "-q")
    process = real(tmp_path, *launcher, "--module", "mtrun", *words, f"trainer.max_steps={step + 2}")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    found = [line for line in out.splitlines() if line.startswith("{")]
    assert [json.loads(line)["steps"] for line in found] == [step + 2]
