"""`mtrun train`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from ..config import TrainConfig
from ..display import showing, training_table
from ..job import Job, job_of
from ..json_values import plain_numbers
from ..listeners import Hooks
from ..planning import make_plan, needs_plan
from ..plans import Plan
from ..results import Result
from ..runfolder import RunFolder
from ..runs import claim, refuse_taken
from ..training import Training

log = logging.getLogger(__name__)


def train(config: TrainConfig, plain: Mapping[str, Any]) -> Result:
    """Train, into a new folder; or, with `dry_run`, take one step and write nothing."""
    if config.dry_run:
        return _dry_run(_planned(job_of(_shortened(config), plain))[0])
    refuse_taken(config.run_dir)
    job, plan = _planned(job_of(config, plain))
    training = Training(job)  # what cannot work fails here, before there is a folder
    spec = job.spec
    folder = claim(config.run_dir, f"{spec.adapter.name}-{spec.backbone.name}-{config.dataset['name']}")
    run = RunFolder(folder, plain)
    if plan is not None:
        plan.save(folder)
    with ExitStack() as stack:
        stack.enter_context(run.recording())
        display = stack.enter_context(showing())
        result = {"run_dir": str(folder), **training.run([display, run, Hooks(run.info)])}
    return _shown(result, f"the run is in {folder}")


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


def _shown(result: dict[str, Any], last: str) -> Result:
    table = training_table(result)

    def show(console: Any) -> None:
        console.print(table)
        console.print(last, soft_wrap=True, highlight=False)

    return Result(plain_numbers(result), show)
