"""`mtrun plan`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mt_core.errors import ConfigError

from ..config import PlanConfig
from ..display import showing
from ..job import job_of
from ..planning import make_plan
from ..plans import PICTURE, PLAN, Plan, read_plan
from ..results import Result
from ..runs import claim, refuse_taken

DRY = "dry run: nothing was written"


def plan(config: PlanConfig, plain: Mapping[str, Any]) -> Result:
    """Make a plan, into a new folder; or, with `plan.file`, show one that was made before."""
    if config.plan.file is not None:
        found, picture = read_plan(config.plan.file), Path(config.output or PICTURE)
        if config.dry_run:
            return _shown(found, {"picture": None}, found.describe(), DRY)
        _write(found.draw, picture, "output")
        return _shown(found, {"picture": str(picture)}, found.describe(), f"drawn in {picture}")
    refuse_taken(config.run_dir)
    job = job_of(config, plain)
    with showing() as display:
        found = make_plan(job, [display])
    if config.dry_run:
        return _shown(found, {"run_dir": None}, found.describe(), DRY)
    folder = claim(config.run_dir, f"plan-{found.adapter}-{job.spec.backbone.name}-{config.dataset['name']}")
    _write(found.save, folder, "run_dir")
    value = {"run_dir": str(folder), "file": str(folder / PLAN), "picture": str(folder / PICTURE)}
    hint = f"train with it: plan.file={folder}; look at it: mtrun plan --show plan.file={folder}"
    text = found.describe() if config.show else hint
    return _shown(found, value, text, f"the plan is in {folder}")


def _write(write: Callable[[Path], None], place: Path, option: str) -> None:
    """Write something to a place that an option names. Raises ConfigError."""
    try:
        write(place)
    except OSError as error:
        raise ConfigError(f"{option}={place} cannot be written: {error.strerror or error}; choose another") from error


def _shown(found: Plan, where: dict[str, Any], *lines: str) -> Result:
    def show(console: Any) -> None:
        for line in lines:
            console.print(line, soft_wrap=True, highlight=False, markup=False)

    return Result({"adapter": found.adapter, **where, "plan": dict(found.values), "from": dict(found.origin)}, show)
