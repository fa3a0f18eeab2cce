"""The plan step: lets a `PlanningAdapter` look at the data before its model is built."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from mt_core.augment import evaluation_transform
from mt_core.build import Entry, build, entry
from mt_core.dataset import Sample, Samples
from mt_core.planning import PlanningAdapter

from .balancers.fixed import Fixed
from .data import Order, evaluation_batches, open_samples
from .job import Job
from .listeners import Listener
from .plans import Plan, planner
from .progress import step_count
from .torch_engine import TorchEngine
from .training import Training

log = logging.getLogger(__name__)

SHARE = 10  # the decoders get this part of a run's steps beforehand, where nothing else is said


def needs_plan(job: Job) -> bool:
    """Whether its adapter wants to look at the data first, and has not yet."""
    adapter = entry("adapters", job.spec.adapter.name, job.spec.adapter.options)
    return isinstance(adapter, PlanningAdapter) and not job.spec.plan


def make_plan(job: Job, listeners: Sequence[Listener]) -> Plan:
    """Fine-tune the decoders on the frozen backbone, then let the adapter look at the pictures.

    Raises:
        ConfigError: if the adapter makes no plans, or cannot make one of what was asked for.
        DataError: if a picture cannot be used, or there are too few.
        CheckpointError: if the backbone's weights cannot be read.
        NonFiniteError: if a loss or a gradient is not finite.
    """
    adapter = planner(job.spec.adapter.name, job.spec.adapter.options)
    build(job.spec, "meta")  # what cannot work fails here, before the decoders are trained
    training = Training(_study(job))
    log.info("planning: the decoders are fine-tuned on the frozen backbone")
    training.run(listeners)
    count = min(job.config.plan.examples, len(training.train_split))
    log.info("planning: %s looks at %d pictures", job.spec.adapter.name, count)
    samples = _First(training.train_split, Order(len(training.train_split), job.config.seed), count)
    options = replace(job.config.trainer, batch_size=1, eval_batches=None)
    transform = evaluation_transform(job.spec.image_size)
    model = training.built.model.eval()
    with closing(evaluation_batches(samples, transform, job.tasks, options, training.device)) as batches:
        values = adapter.plan(model, (batch.to(training.device) for batch in batches))
    return Plan(job.spec.adapter.name, values, _origin(job, training))


@dataclass(frozen=True)
class _First:
    """The first pictures in the order of training."""

    samples: Samples
    order: Order
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int, /) -> Sample:
        return self.samples[self.order[index]]


def _study(job: Job) -> Job:
    """The run that fine-tunes the decoders alone, in this process, whatever engine the run itself has."""
    options, wanted = job.config.trainer, job.config.plan
    pictures = len(open_samples(job.dataset, "train", job.tasks, options))
    steps = max(1, step_count(options, pictures) // SHARE) if wanted.steps is None else wanted.steps
    once = replace(options, max_steps=steps, epochs=None, eval_before=False, eval_every=steps, eval_batches=1)
    short = replace(once, panels=0, ema=None, compile=False)  # gradients of single pictures are taken of it afterwards
    spec = replace(job.spec, adapter=Entry("frozen"), plan={})
    config = replace(job.config, trainer=short, balancer={"name": "fixed"})
    return replace(job, config=config, spec=spec, engine=TorchEngine(), balancer=Fixed())


def _origin(job: Job, training: Training) -> dict[str, Any]:
    return {
        "backbone": job.spec.backbone.name,
        "backbone_init": "random" if training.built.random else "pretrained",
        "base_sha256": training.built.base,
        "decoder": job.spec.decoder.name,
        "decoder_steps": training.steps,
        "dataset": job.config.dataset["name"],
        "image_size": list(job.spec.image_size),
        "seed": job.config.seed,
    }
