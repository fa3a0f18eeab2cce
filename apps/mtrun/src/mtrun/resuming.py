"""Going on with a run: what its saved state says, and in what its configuration may differ by now."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from textwrap import shorten
from typing import Any

from torch import Tensor

from mt_core.errors import CheckpointError, ConfigError

from .config import TrainConfig
from .job import Job, job_of
from .listeners import Session
from .progress import Progress
from .state import State

ABSENT = "absent"
WHERE_WEIGHTS_ARE = ("checkpoint", "pretrained")  # may change; what must not is their hash


@dataclass(frozen=True)
class Saved:
    """What a run goes on from.

    Attributes:
        identity: everything that makes it this run and no other, by the name of the option.
        plan: what the adapter had found in the data; empty without.
        base: hash of the frozen weights.
        pictures: in the training split.
        tensors: what the engine kept.
    """

    progress: Progress
    identity: Mapping[str, Any]
    plan: Mapping[str, Any]
    base: str
    pictures: int
    tensors: Mapping[str, Tensor]


def state_of(session: Session, progress: Progress, snapshot: Mapping[str, Tensor]) -> State:
    """What is saved of a run; `snapshot` is the engine's."""
    values = {
        "progress": progress.to_json(),
        "identity": identity(session.job),
        "plan": dict(session.job.spec.plan),
        "base_sha256": session.built.base,
        "pictures": session.pictures,
    }
    return State(progress.step, values, snapshot)


def saved_of(state: State) -> Saved:
    """Read it back.

    Raises:
        CheckpointError: if something is missing, or is not what it should be.
    """
    values = state.values
    try:
        progress = Progress.from_json(values["progress"])
        base, pictures = str(values["base_sha256"]), int(values["pictures"])
        return Saved(progress, dict(values["identity"]), dict(values["plan"]), base, pictures, state.tensors)
    except (ConfigError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"the state of step {state.step} does not describe a run: {error!r}") from error


def resumed_job(config: TrainConfig, plain: Mapping[str, Any], before: Mapping[str, Any], saved: Saved) -> Job:
    """The job that goes on with a run, with its plan.

    Args:
        config: as it is now.
        plain: the same as plain values.
        before: what the run recorded.
        saved: where it is.

    Raises:
        ConfigError: if it would be another run.
    """
    if config.run_dir != before.get("run_dir"):
        raise ConfigError(f"run_dir={config.run_dir} with resume: a run goes on in its own folder; copy it beforehand")
    file = config.plan.file
    if file is None or file == before.get("plan", {}).get("file"):
        job = job_of(replace(config, plan=replace(config.plan, file=None)), plain)
        job = replace(job, config=config, spec=replace(job.spec, plan=dict(saved.plan)))
    else:
        job = job_of(config, plain)
    now = identity(job)
    for key in [*saved.identity, *now]:
        old, new = saved.identity.get(key, ABSENT), now.get(key, ABSENT)
        if old != new:
            raise ConfigError(
                f"{key} cannot change when a run goes on: it was {_shown(old)}, it would be {_shown(new)}; leave it "
                f"as it was, or start a new run"
            )
    return job


def identity(job: Job) -> dict[str, Any]:
    """Everything that must not change, by the name of its option: the model, its tasks, its pictures, the protocol."""
    spec = job.spec.to_json()
    backbone = {key: x for key, x in spec["backbone"]["options"].items() if key not in WHERE_WEIGHTS_ARE}
    values = {
        "dataset": {"name": job.config.dataset["name"]},
        "tasks": [task["name"] for task in spec["tasks"]],
        "backbone": {"name": spec["backbone"]["name"], **backbone},
        **{kind: {"name": spec[kind]["name"], **spec[kind]["options"]} for kind in ("adapter", "decoder")},
        "task": {task["name"]: task for task in spec["tasks"]},
        "protocol": job.protocol.name,
        **{key: spec[key] for key in ("image_size", "seed", "plan")},
    }
    found: dict[str, Any] = json.loads(json.dumps(dict(_flat(values))))
    return found


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What differs between two configurations, a line for every option."""
    old, new = dict(_flat(before)), dict(_flat(after))
    return [
        f"{key}: {_shown(old.get(key, ABSENT))} -> {_shown(new.get(key, ABSENT))}"
        for key in dict.fromkeys([*old, *new])
        if old.get(key, ABSENT) != new.get(key, ABSENT)
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested dictionaries, as the command line names them."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield (prefix.removesuffix(".") if key == "name" and prefix else f"{prefix}{key}"), value


def _shown(value: Any) -> str:
    return shorten(json.dumps(value), 80, placeholder=" ...") if not isinstance(value, str) else value
