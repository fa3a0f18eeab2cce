"""`mtrun train`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from .. import terminal
from ..config import TrainConfig
from ..display import Bar, Lines, training_table
from ..job import Job, job_of
from ..json_values import plain_numbers
from ..listeners import Hooks
from ..results import Result
from ..runfolder import RunFolder
from ..runs import claim, refuse_taken
from ..training import Training


def train(config: TrainConfig, plain: Mapping[str, Any]) -> Result:
    """Train, into a new folder; or, with `dry_run`, take one step and write nothing."""
    if config.dry_run:
        return _dry_run(job_of(_shortened(config), plain))
    refuse_taken(config.run_dir)
    job = job_of(config, plain)
    training = Training(job)  # what cannot work fails here, before there is a folder
    spec = job.spec
    folder = claim(config.run_dir, f"{spec.adapter.name}-{spec.backbone.name}-{config.dataset['name']}")
    run = RunFolder(folder, plain)
    with ExitStack() as stack:
        stack.enter_context(run.recording())
        display = stack.enter_context(_display())
        result = {"run_dir": str(folder), **training.run([display, run, Hooks(run.info)])}
    return _shown(result, f"the run is in {folder}")


def _dry_run(job: Job) -> Result:
    training = Training(job)
    with _display() as display:
        result = {"run_dir": None, "dry_run": True, **training.run([display])}
    return _shown(result, "dry run: one step was taken, nothing was written")


def _shortened(config: TrainConfig) -> TrainConfig:
    short = replace(config.trainer, max_steps=1, eval_before=False, eval_batches=1, panels=0)
    return replace(config, trainer=short)


def _shown(result: dict[str, Any], last: str) -> Result:
    table = training_table(result)

    def show(console: Any) -> None:
        console.print(table)
        console.print(last, soft_wrap=True, highlight=False)

    return Result(plain_numbers(result), show)


@contextmanager
def _display() -> Iterator[Lines]:
    """A live bar on a terminal, plain lines elsewhere."""
    display = Bar() if terminal.stderr().is_terminal else Lines()
    try:
        yield display
    finally:
        display.close()
