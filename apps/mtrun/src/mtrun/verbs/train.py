"""`mtrun train`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from mt_core.errors import ConfigError

from ..config import TrainConfig
from ..display import showing, training_table
from ..job import Job, job_of
from ..json_values import plain_numbers
from ..listeners import Hooks
from ..lock import locked
from ..planning import make_plan, needs_plan
from ..plans import Plan
from ..results import Result
from ..resuming import differences, resumed_job, saved_of
from ..runfolder import RunFolder
from ..runs import RESULT, STATE, claim, config_to_resume, read_result, refuse_taken
from ..state import States
from ..training import Training
from ..writing import writing

log = logging.getLogger(__name__)


def train(config: TrainConfig, plain: Mapping[str, Any]) -> Result:
    """Train, into a new folder or on in that of `resume`; or, with `dry_run`, take one step and write nothing."""
    if config.dry_run and config.resume is not None:
        raise ConfigError("dry_run=true and resume exclude each other: a dry run starts anew; leave one of them away")
    if config.resume is not None:
        return _resume(Path(config.resume), config, plain)
    if config.dry_run:
        return _dry_run(_planned(job_of(_shortened(config), plain))[0])
    refuse_taken(config.run_dir)
    job, plan = _planned(job_of(config, plain))
    training = Training(job)  # what cannot work fails here, before there is a folder
    spec = job.spec
    folder = claim(config.run_dir, f"{spec.adapter.name}-{spec.backbone.name}-{config.dataset['name']}")
    with locked(folder):
        run = RunFolder(folder, plain, States(folder / STATE, config.trainer.keep_states))
        if plan is not None:
            with writing(folder):
                plan.save(folder)
        return _recorded(training, run)


def _resume(folder: Path, config: TrainConfig, plain: Mapping[str, Any]) -> Result:
    """Go on from the newest complete state of a run."""
    before, after = config_to_resume(str(folder)), {**plain, "resume": None}
    with locked(folder):
        states = States(folder / STATE, config.trainer.keep_states)
        saved = saved_of(states.newest())
        training = Training(resumed_job(config, plain, before, saved), saved)
        done = saved.progress.step
        if done == training.steps and (folder / RESULT).is_file():
            more = f"the run has taken all of its {done} steps; trainer.max_steps=NUMBER takes it further"
            return _shown(training.result(), more, {"run_dir": str(folder), **read_result(folder)})
        run = RunFolder(folder, after, states)
        run.rewind(training.progress)
        changed = differences(before, after)
        return _recorded(training, run, f"resuming {folder} after step {done} of {training.steps}", *changed)


def _recorded(training: Training, run: RunFolder, *lines: str) -> Result:
    """Train, and record it in the run's folder; first of all these lines."""
    with ExitStack() as stack:
        stack.enter_context(run.recording())
        for line in lines:
            log.info("%s", line)
        display = stack.enter_context(showing())
        result = {"run_dir": str(run.folder), **training.run([display, run, Hooks(run.info)])}
    return _shown(result, f"the run is in {run.folder}")


def _dry_run(job: Job) -> Result:
    training = Training(job)
    with showing() as display:
        result = {"run_dir": None, "dry_run": True, **training.run([display])}
    return _shown(result, "dry run: one step was taken, nothing was written")


def _planned(job: Job) -> tuple[Job, Plan | None]:
    """The job with a plan, and the plan where it was made now."""
    if not needs_plan(job):
        return job, None
    with showing() as display:
        plan = make_plan(job, [display])
    log.info("%s", plan.describe())
    return replace(job, spec=replace(job.spec, plan=dict(plan.values))), plan


def _shortened(config: TrainConfig) -> TrainConfig:
    short = replace(config.trainer, max_steps=1, eval_before=False, eval_batches=1, panels=0)
    return replace(config, trainer=short, plan=replace(config.plan, steps=1, examples=2))


def _shown(result: dict[str, Any], last: str, value: dict[str, Any] | None = None) -> Result:
    """The table of a result, and a line below it; `value` in the place of the result for a script."""
    table = training_table(result)

    def show(console: Any) -> None:
        console.print(table)
        console.print(last, soft_wrap=True, highlight=False)

    return Result(plain_numbers(result if value is None else value), show)
