"""`mtrun eval`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import count as counting
from pathlib import Path
from typing import Any

import torch

from mt_core.artefact import find, load_artefact
from mt_core.augment import evaluation_transform
from mt_core.build import Built
from mt_core.dataset import Dataset, Samples, choose
from mt_core.errors import ConfigError
from mt_core.files import write_json
from mt_core.model import MultiTaskModel
from mt_core.protocols import protocol
from mt_core.task import Task

from ..config import EvalConfig
from ..data import evaluated_pictures, evaluation_batches, note_skipped, open_samples
from ..display import evaluation_table
from ..environment import environment
from ..evaluation import departures_of, directions, rounds_of
from ..evaluation import evaluate as measure
from ..job import chosen, device_of, select_tasks
from ..json_values import plain_numbers
from ..places import place
from ..ranks import Ranks, joined
from ..recipe import Precision
from ..results import Result
from ..runs import run_of
from ..signals import shielded
from ..stepping import autocast


def evaluate(config: EvalConfig, plain: Mapping[str, Any]) -> Result:
    """Measure a trained model on the validation split; written beside the run as eval-N.json.

    With several ranks, all of them run this; the main one alone writes and shows.
    """
    where, options = place(), config.trainer
    device = device_of(options.device, where)
    with joined(where, device, config.launch.timeout) as ranks, shielded():
        result = _measured(config, device, ranks)
    if not ranks.is_main:
        return Result({}, lambda console: None)
    return _written(result, None if config.dry_run else run_of(config.checkpoint))


def _loaded(config: EvalConfig, artefact: Path, device: torch.device) -> tuple[Built, list[Task], Samples]:
    """The model, its tasks that are measured, and the pictures."""
    dataset: Dataset = chosen("datasets", config.dataset)
    built = load_artefact(artefact, device, config.base_checkpoint)
    model = built.model
    names = [entry.partition(":")[0] for entry in config.tasks or ()]
    model.select(select_tasks(model.tasks, names if config.tasks is not None else None, str(artefact)))
    tasks = [model.tasks[name] for name in model.selected]
    _check(tasks, dataset, config, artefact)
    return built, tasks, open_samples(dataset, "val", tasks, config.trainer)


def _measured(config: EvalConfig, device: torch.device, ranks: Ranks) -> dict[str, Any]:
    artefact = ranks.alike(lambda: find(Path(config.checkpoint)))
    built, tasks, samples = ranks.alike(lambda: _loaded(config, artefact, device))
    rules, options, model = protocol(config.protocol), config.trainer, built.model
    rules = rules.thorough() if config.slow else rules
    departures = departures_of(rules, config.dataset["name"], tasks, built.spec.image_size)
    started = time.perf_counter()
    transform = evaluation_transform(built.spec.image_size)
    count = evaluated_pictures(samples, options)
    with closing(evaluation_batches(samples, transform, tasks, options, device, ranks)) as batches:
        found = measure(
            model,
            batches,
            rules,
            device,
            logits=partial(_logits, model, device, options.precision),
            rounds=rounds_of(count, options.batch_size, ranks) if ranks.world > 1 else None,
            ranks=ranks,
        )
    note_skipped({}, found.skipped, "val", options)
    return {
        "checkpoint": str(artefact),
        "protocol": rules.name,
        "departures": departures,
        "dataset": config.dataset["name"],
        "dataset_notes": chosen("datasets", config.dataset).notes(tasks),
        "backbone_init": "random" if built.random else "pretrained",
        "metrics": found.metrics,
        "directions": directions(rules, tasks),
        "losses": found.losses,
        "images": found.images,
        "skipped_pictures": list(found.skipped),
        "seconds": time.perf_counter() - started,
        "environment": environment(device),
    }


@torch.no_grad()
def _logits(
    model: MultiTaskModel, device: torch.device, precision: Precision, images: torch.Tensor
) -> dict[str, torch.Tensor]:
    with autocast(device, precision):
        return model(images)  # type: ignore[no-any-return]


def _written(result: dict[str, Any], run: Path | None) -> Result:
    """Write the result into the run's folder, where there is one."""
    value, table = plain_numbers(result), evaluation_table(result)
    path = None if run is None else next(p for n in counting(1) if not (p := run / f"eval-{n}.json").exists())
    if path is not None:
        write_json(path, value)

    def show(console: Any) -> None:
        console.print(table)
        if path is not None:
            console.print(f"written to {path}", soft_wrap=True, highlight=False)

    return Result({**value, "written": None if path is None else str(path)}, show)


def _check(tasks: Sequence[Task], dataset: Dataset, config: EvalConfig, artefact: Path) -> None:
    """The data set annotates what the model predicts."""
    entries = {entry.partition(":")[0]: entry for entry in config.tasks or ()}
    annotated = choose(dataset.tasks(), [entries.get(task.name, task.name) for task in tasks])
    for task, other in zip(tasks, annotated, strict=True):
        if (task.kind, task.channels) != (other.kind, other.channels):
            raise ConfigError(
                f"task {task.name}: {artefact} predicts {task.kind} with {task.channels} channels, data set "
                f"{config.dataset['name']} has {other.kind} with {other.channels}; choose the one it was trained on"
            )
