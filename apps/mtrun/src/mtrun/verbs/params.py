"""`mtrun params`: what a training run would train, counted on the meta device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mt_core.accounting import report
from mt_core.build import build

from ..config import TrainConfig
from ..display import parameters_table
from ..job import job_of
from ..results import Result


def params(config: TrainConfig, plain: Mapping[str, Any]) -> Result:
    """Count parameters and operations. No data and no weights are read."""
    job = job_of(config, plain)
    built = build(job.spec, "meta")
    value = {
        "adapter": job.spec.adapter.name,
        "backbone": job.spec.backbone.name,
        "decoder": job.spec.decoder.name,
        "tasks": {task.name: task.channels for task in job.tasks},
        **report(built.model, job.spec.image_size),
    }
    return Result(value, lambda console: console.print(parameters_table(value)))
