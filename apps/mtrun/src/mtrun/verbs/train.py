"""`mtrun train`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from mt_core.errors import ConfigError, MTError

from ..config import TrainConfig
from ..display import showing, training_table
from ..job import Job, device_of, job_of
from ..json_values import plain_numbers
from ..listeners import Hooks
from ..lock import locked
from ..places import met_by_all, place
from ..planning import make_plan, needs_plan
from ..plans import Plan
from ..ranks import Ranks, joined
from ..results import Result
from ..resuming import differences, resumed_job, saved_of
from ..runfolder import RunFolder
from ..runs import RESULT, STATE, claim, config_to_resume, read_result, refuse_taken
from ..state import States
from ..training import Training
from ..writing import writing

log = logging.getLogger(__name__)


def train(config: TrainConfig, plain: Mapping[str, Any]) -> Result:
    """Train, into a new folder or on in that of `resume`; or, with `dry_run`, take one step and write nothing.

    With several ranks, all of them run this; the main one alone writes and shows.
    """
    if config.dry_run and config.resume is not None:
        raise ConfigError("dry_run=true and resume exclude each other: a dry run starts anew; leave one of them away")
    where = place()
    with met_by_all():
        job_of(config, plain).engine.refuse(config.trainer, 1 if where is None else where.world)
    with joined(where, device_of(config.trainer.device, where), config.launch.timeout) as ranks:
        if config.resume is not None:
            return _resume(Path(config.resume), config, plain, ranks)
        if config.dry_run:
            return _dry_run(job_of(_shortened(config), plain), ranks)
        return _begin(config, plain, ranks)


def _begin(config: TrainConfig, plain: Mapping[str, Any], ranks: Ranks) -> Result:
    """A new run. What cannot work fails before there is a folder."""
    ranks.alike(lambda: refuse_taken(config.run_dir))
    job, plan = _planned(job_of(config, plain), ranks)
    training = Training(job, ranks=ranks)
    with ExitStack() as stack:
        run, error = None, None
        if ranks.is_main:
            try:
                run = _new_folder(training.job, plain, plan, stack)
            except MTError as failure:
                error = failure
        ranks.agree(error)
        return _recorded(training, run)


def _new_folder(job: Job, plain: Mapping[str, Any], plan: Plan | None, stack: ExitStack) -> RunFolder:
    """The folder of a new run, locked as long as the stack is open."""
    spec, config = job.spec, job.config
    folder = claim(config.run_dir, f"{spec.adapter.name}-{spec.backbone.name}-{config.dataset['name']}")
    stack.enter_context(locked(folder))
    run = RunFolder(folder, plain, States(folder / STATE, config.trainer.keep_states))
    if plan is not None:
        with writing(folder):
            plan.save(folder)
    return run


def _resume(folder: Path, config: TrainConfig, plain: Mapping[str, Any], ranks: Ranks) -> Result:
    """Go on from the newest complete state of a run, which every rank reads."""
    before, after = config_to_resume(str(folder)), {**plain, "resume": None}
    with ExitStack() as stack:
        ranks.agree(_entered(stack, locked(folder)) if ranks.is_main else None)
        states = States(folder / STATE, config.trainer.keep_states)
        saved = ranks.alike(lambda: saved_of(states.newest()))
        job = ranks.alike(lambda: resumed_job(config, plain, before, saved))
        training = Training(job, saved, ranks)
        done = saved.progress.step
        if done == training.steps and (folder / RESULT).is_file():
            more = f"the run has taken all of its {done} steps; trainer.max_steps=NUMBER takes it further"
            return _shown(training.result(), more, {"run_dir": str(folder), **read_result(folder)})
        ranks.agree()  # everybody has read what the main rank is about to rewind
        if not ranks.is_main:
            return _recorded(training, None)
        run = RunFolder(folder, after, states)
        run.rewind(training.progress)
        changed = differences(before, after)
        return _recorded(training, run, f"resuming {folder} after step {done} of {training.steps}", *changed)


def _entered(stack: ExitStack, context: AbstractContextManager[Any]) -> MTError | None:
    """Enter a context; the error, where it cannot be."""
    try:
        stack.enter_context(context)
    except MTError as error:
        return error
    return None


def _recorded(training: Training, run: RunFolder | None, *lines: str) -> Result:
    """Train, and record it in the run's folder, on the main rank; first of all these lines."""
    if run is None:
        result = training.run([])
        return Result({}, lambda console: None)
    with ExitStack() as stack:
        stack.enter_context(run.recording())
        for line in lines:
            log.info("%s", line)
        display = stack.enter_context(showing())
        result = {"run_dir": str(run.folder), **training.run([display, run, Hooks(run.info)])}
    return _shown(result, f"the run is in {run.folder}")


def _dry_run(job: Job, ranks: Ranks) -> Result:
    job, _ = _planned(job, ranks)
    training = Training(job, ranks=ranks)
    with showing() as display:
        listeners = [display] if ranks.is_main else []
        result = {"run_dir": None, "dry_run": True, **training.run(listeners)}
    return _shown(result, "dry run: one step was taken, nothing was written")


def _planned(job: Job, ranks: Ranks) -> tuple[Job, Plan | None]:
    """The job with a plan, and the plan where it was made now, on the main rank."""
    if not needs_plan(job):
        return job, None
    plans: list[Plan] = []

    def make() -> dict[str, Any]:
        with showing() as display:
            plans.append(make_plan(job, [display]))
        return dict(plans[0].values)

    values = ranks.first_main("plan", make)
    plan = plans[0] if plans else None
    if plan is not None:
        log.info("%s", plan.describe())
    return replace(job, spec=replace(job.spec, plan=values)), plan


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
