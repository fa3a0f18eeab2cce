"""From a composed configuration to the objects of a run: data set, tasks, and the description of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from mt_core.adapter import Adapter
from mt_core.augment import Augment, evaluation_transform, training_transform
from mt_core.backbone import Backbone
from mt_core.build import ModelSpec, entry, spec_of, usual_decoder
from mt_core.dataset import Dataset, choose
from mt_core.decoder import Decoder
from mt_core.discovery import Registry
from mt_core.errors import ConfigError
from mt_core.options import from_dict
from mt_core.protocols import Protocol, protocol
from mt_core.task import Task

from .balancers import BALANCERS, Balancer
from .config import TrainConfig
from .engine import ENGINES, Engine
from .places import Place
from .plans import plan_for
from .recipe import AugmentOptions, LossOptions
from .source import AUTO


@dataclass(frozen=True)
class Job:
    """Everything that a training run is made of, before anything is read or built.

    Attributes:
        config: as composed.
        plain: the same as plain values, which is what a run's folder records.
        spec: the model.
        tasks: with the losses that were asked for.
    """

    config: TrainConfig
    plain: Mapping[str, Any]
    spec: ModelSpec
    dataset: Dataset
    tasks: tuple[Task, ...]
    protocol: Protocol
    engine: Engine
    balancer: Balancer


def job_of(config: TrainConfig, plain: Mapping[str, Any]) -> Job:
    """Turn the options of every chosen plugin into its object. Reads no data and builds no weights.

    Raises:
        ConfigError: if options, tasks or losses cannot be.
    """
    dataset: Dataset = chosen("datasets", config.dataset)
    wanted = config.tasks if config.tasks is not None else dataset.usual_tasks or None
    tasks = tuple(_with_losses(choose(dataset.tasks(), wanted), config.loss))
    rules = protocol(config.protocol)
    for task in tasks:
        rules.metrics(task)
    engine: Engine = _part(ENGINES, config.engine, "engine")
    balancer: Balancer = _part(BALANCERS, config.balancer, "balancer")
    return Job(config, plain, _spec(config, dataset, tasks), dataset, tasks, rules, engine, balancer)


def chosen(kind: str, options: Mapping[str, Any]) -> Any:
    """The options object of what a config group chose."""
    return entry(kind, options["name"], _without_name(options))


def transforms(job: Job) -> tuple[Augment, Augment]:
    """What pictures go through in training, and in evaluation."""
    return training(job.config.augment, job.dataset, job.spec.image_size), evaluation_transform(job.spec.image_size)


def training(options: AugmentOptions, dataset: Dataset, size: tuple[int, int]) -> Augment:
    """The augmentation that the options name; what they leave open is the data set's."""
    if not options.enabled:
        return evaluation_transform(size)
    return training_transform(
        size,
        flip=dataset.flip if options.flip is None else options.flip,
        rotation=dataset.rotation if options.rotation is None else options.rotation,
        zoom=dataset.zoom if options.zoom is None else options.zoom,
        jitter=options.jitter,
    )


def device_of(name: str, where: Place | None = None) -> torch.device:
    """The device that `trainer.device` names; of several ranks, each has its own.

    Raises:
        ConfigError: if there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if where is not None and name.startswith("cuda"):
        if name != "cuda":
            raise ConfigError(f"trainer.device={name!r} with {where.world} ranks: each takes its own; use cuda")
        name = f"cuda:{where.local}"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"trainer.device={name!r} cannot be used: {str(error).splitlines()[0]}; use auto, cpu or cuda:N"
        ) from error
    return device


def select_tasks(tasks: Mapping[str, Task], wanted: Sequence[str] | None, where: str) -> list[str]:
    """The names of those of a trained model's tasks that are wanted.

    Raises:
        ConfigError: if one is unknown.
    """
    for name in wanted or ():
        if name not in tasks:
            raise ConfigError(f"unknown task {name!r}; {where} was trained for {', '.join(tasks)}")
    if wanted is not None and not wanted:
        raise ConfigError(f"tasks is empty; choose at least one of {', '.join(tasks)}")
    return list(tasks if wanted is None else wanted)


def _spec(config: TrainConfig, dataset: Dataset, tasks: tuple[Task, ...]) -> ModelSpec:
    adapter: Adapter = chosen("adapters", config.adapter)
    backbone: Backbone = chosen("backbones", config.backbone)
    head = config.decoder["name"]
    head = usual_decoder(backbone, adapter) if head == AUTO else head
    decoder: Decoder = entry("decoders", head, _without_name(config.decoder))
    size = dataset.image_size if config.image_size is None else config.image_size
    spec = spec_of(
        (config.backbone["name"], backbone),
        (config.adapter["name"], adapter),
        (head, decoder),
        tasks,
        size,
        config.seed,
    )
    return spec if config.plan.file is None else replace(spec, plan=plan_for(spec.adapter.name, config.plan.file))


def _part(registry: Registry, options: Mapping[str, Any], kind: str) -> Any:
    """The options object of something that mtrun itself brings."""
    return from_dict(registry[options["name"]], _without_name(options), f"{kind} {options['name']}")


def _with_losses(tasks: Sequence[Task], options: LossOptions) -> list[Task]:
    """The tasks, each with the loss that is to train it."""
    known = [task.name for task in tasks]
    for key, given in (("weights", options.weights), ("names", options.names)):
        if unknown := [name for name in given if name not in known]:
            raise ConfigError(f"loss.{key}.{unknown[0]}: no such task in this run; it has {', '.join(known)}")
    for name, weight in options.weights.items():
        if not 0 <= weight < float("inf"):
            raise ConfigError(f"loss.weights.{name}={weight}: expected a number from 0 on")
    return [task.with_loss(options.names[task.name]) if task.name in options.names else task for task in tasks]


def _without_name(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key != "name"}
