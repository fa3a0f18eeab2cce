"""Making the runs: several side by side, one thread each, in processes that load everything once."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import active_children, get_context
from pathlib import Path

import torch

from mt_core.errors import MTError
from mt_core.files import write_json
from mt_datasets.rooms import dataset
from mtrun.cli import main
from mtrun.runs import RESULT, STATE

from .settings import Run

CPU = "cpu.json"  # in a run's folder: the processor's seconds, those before an interruption included
UNUSABLE = 4  # mtrun's exit code where what was saved cannot be gone on with


class RunFailedError(MTError):
    """A run did not end well; started again, the leaderboard goes on with it."""


def finish_all(runs: Sequence[Run], jobs: int, said: Callable[[str], None]) -> None:
    """Bring every run to its end.

    Args:
        said: is told what is done.

    Raises:
        RunFailedError: if one does not end well. The others stop, and save what they have.
    """
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=prepare) as pool:
        waiting = {pool.submit(finish, run): run for run in runs}
        try:
            for number, done in enumerate(as_completed(waiting), 1):
                said(f"{number} of {len(runs)}: {waiting[done].folder.name} {done.result()}")
        except BaseException:
            for child in active_children():
                child.terminate()
            pool.shutdown(cancel_futures=True)
            raise


def prepare() -> None:
    """Make a process ready: one thread, and every picture drawn once, because drawing takes longer than training."""
    torch.set_num_threads(1)
    names = vars(dataset)
    if not hasattr(names["frame"], "cache_info"):
        names["frame"] = functools.cache(names["frame"])


def finish(run: Run) -> str:
    """Bring a run to its end from wherever it is; how that was done.

    Raises:
        RunFailedError: if it does not end well.
    """
    if (run.folder / RESULT).is_file():
        return "was done"
    code, printed, started = UNUSABLE, io.StringIO(), time.process_time()
    before = cpu_seconds(run.folder)
    resuming = any((run.folder / STATE).glob("*"))
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        if resuming:
            code = main([f"resume={run.folder}"])
        if code == UNUSABLE:
            resuming = False
            shutil.rmtree(run.folder, ignore_errors=True)
            code = main([*run.words, f"run_dir={run.folder}"])
    took = time.process_time() - started
    if run.folder.is_dir():
        write_json(run.folder / CPU, {"cpu_seconds": before + took})
    if code:
        text = printed.getvalue()[-2000:]
        raise RunFailedError(f"{run.folder} ended with exit code {code}; start again to go on with it\n{text}")
    return f"{'resumed' if resuming else 'trained'}, {took:.0f} s of processor"


def cpu_seconds(folder: Path) -> float:
    """What a run has taken so far."""
    file = folder / CPU
    return float(json.loads(file.read_text())["cpu_seconds"]) if file.is_file() else 0.0
