"""The training loop, written once for every engine."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import torch

from mt_core.accounting import count_parameters
from mt_core.build import build
from mt_core.dataset import Batch, Samples
from mt_core.errors import DataError
from mt_core.model import Objective

from .data import derived_seed, evaluation_batches, training_batches
from .environment import environment
from .evaluation import Evaluation, directions, evaluate
from .job import Job, device_of, transforms
from .listeners import EvaluationReport, Listener, Session, StepReport
from .optimizers import learning_rate
from .recipe import TrainerOptions
from .signals import Terminated, shielded

log = logging.getLogger(__name__)

USUAL_STEPS = 1000  # of a run that names neither steps nor epochs


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        step: steps taken.
        seconds: that they took, with waiting for data and without evaluations.
        before, last, best: evaluations of the untrained model, after the last one made, and with the lowest loss.
    """

    step: int = 0
    seconds: float = 0.0
    before: Evaluation | None = None
    last: Evaluation | None = None
    best: Evaluation | None = None
    best_step: int = 0
    best_loss: float = field(default=math.inf)


class Training:
    """A training run, made ready: the pictures are found, the model is built. Nothing is written.

    Raises:
        DataError: if a split is empty or incomplete.
        ConfigError, CheckpointError: if the model cannot be built.
    """

    def __init__(self, job: Job) -> None:
        self.job, self.options = job, job.config.trainer
        self.device = device_of(self.options.device)
        self.transforms = transforms(job)
        self.train_split, self.val_split = (self._split(name) for name in ("train", "val"))
        self.steps = step_count(self.options, len(self.train_split))
        self.built = build(job.spec, self.device)
        self.counts = count_parameters(self.built.model, job.spec.image_size)
        loss = job.config.loss
        self.objective = Objective(self.built.model, loss.weights, loss.normalise, loss.penalty)
        job.engine.prepare(self.objective, self.options, self.device)
        self.directions = directions(job.protocol, job.tasks)
        self.listeners: list[Listener] = []
        self.progress = Progress()

    def run(self, listeners: Sequence[Listener]) -> dict[str, Any]:
        """Train, tell the listeners of every step and evaluation, and say what came out.

        Raises:
            DataError: if a picture or a label cannot be used.
            NonFiniteError: if a loss or a gradient is not finite.
            PluginError: if a plugin fails in a hook.
            Terminated, KeyboardInterrupt: when told to stop, after the listeners were told.
        """
        self.listeners = list(listeners)
        session = Session(self.job, self.built, self.job.engine, self.steps, self.directions)
        try:
            self._tell(lambda listener: listener.on_start(session))
            if self.options.eval_before:
                self.progress.before = self._evaluate()
            self._train()
        except (Terminated, KeyboardInterrupt):
            with shielded():
                self._tell(lambda listener: listener.on_stop(self.progress.step))
            raise
        result = self.result()
        self._tell(lambda listener: listener.on_end(result))
        return result

    def result(self) -> dict[str, Any]:
        """What `result.json` holds."""
        progress, config = self.progress, self.job.config
        images = progress.step * self.options.batch_size * self.options.accumulate
        return {
            "protocol": self.job.protocol.name,
            "dataset": config.dataset["name"],
            "adapter": self.job.spec.adapter.name,
            "backbone": self.job.spec.backbone.name,
            "decoder": self.job.spec.decoder.name,
            "backbone_init": "random" if self.built.random else "pretrained",
            "base_sha256": self.built.base,
            "tasks": {task.name: task.channels for task in self.job.tasks},
            "image_size": list(self.job.spec.image_size),
            "metrics": {
                name: None if found is None else found.metrics
                for name, found in (("before", progress.before), ("final", progress.last), ("best", progress.best))
            },
            "directions": self.directions,
            "best": {"step": progress.best_step, "by": "lowest weighted validation loss", "loss": progress.best_loss},
            "weights": {"average": "none" if self.options.ema is None else "exponential", "decay": self.options.ema},
            "parameters": {
                "trainable": self.counts.trainable,
                "live": self.counts.live,
                "total": self.counts.total,
                "groups": {name: asdict(count) for name, count in self.counts.groups.items()},
            },
            "seed": config.seed,
            "steps": progress.step,
            "seconds": progress.seconds,
            "images_per_second": images / max(progress.seconds, 1e-9),
            "environment": environment(self.device),
        }

    def _train(self) -> None:
        every = self.options.eval_every or max(1, self.steps // 10)
        with closing(self._batches(range(self.steps * self.options.accumulate))) as batches:
            for step in range(1, self.steps + 1):
                started = time.perf_counter()
                group = list(islice(batches, self.options.accumulate))
                with shielded():
                    self._step(step, group, started)
                if step % every == 0 or step == self.steps:
                    self._evaluate()

    def _step(self, step: int, group: Sequence[Batch], started: float) -> None:
        # What is random inside the model follows from seed and step, as the data do: there is no state to keep.
        torch.manual_seed(derived_seed(self.job.config.seed, step))
        rate = learning_rate(step - 1, self.steps, self.options)
        result = self.job.engine.step(step, group, rate)
        took = time.perf_counter() - started
        self.progress.step, self.progress.seconds = step, self.progress.seconds + took
        report = StepReport(
            step=step,
            result=result,
            loss=sum(self.objective.weights[task.name] * result.losses[task.name] for task in self.job.tasks),
            rate=rate,
            images_per_second=sum(len(batch.ids) for batch in group) / took,
            seconds=self.progress.seconds,
            logged=step % self.options.log_every == 0 or step in (1, self.steps),
        )
        self._tell(lambda listener: listener.on_step(report))

    def _evaluate(self) -> Evaluation:
        progress = self.progress
        with closing(self._val_batches()) as batches, self.job.engine.averaged():
            found = evaluate(
                self.built.model, batches, self.job.protocol, self.device, self.options.precision, self.options.panels
            )
        loss = found.objective(self.objective.weights)
        best = progress.step > 0 and loss < progress.best_loss
        with shielded():
            progress.last = found
            if best:
                progress.best, progress.best_step, progress.best_loss = found, progress.step, loss
            report = EvaluationReport(progress.step, found, loss, best)
            self._tell(lambda listener: listener.on_evaluation(report))
        return found

    def _split(self, name: str) -> Samples:
        samples = self.job.dataset.split(name, self.job.tasks)
        if not len(samples):
            raise DataError(f"split {name!r} of data set {self.job.config.dataset['name']} has no picture; add some")
        return samples

    def _batches(self, numbers: range) -> Generator[Batch, None, None]:
        return training_batches(
            self.train_split,
            self.transforms[0],
            self.job.tasks,
            self.options,
            self.job.config.seed,
            self.device,
            numbers,
        )

    def _val_batches(self) -> Generator[Batch, None, None]:
        return evaluation_batches(self.val_split, self.transforms[1], self.job.tasks, self.options, self.device)

    def _tell(self, what: Callable[[Listener], None]) -> None:
        for listener in self.listeners:
            what(listener)


def step_count(options: TrainerOptions, pictures: int) -> int:
    """How many steps a run takes on a data set of so many pictures."""
    limits = [] if options.max_steps is None else [options.max_steps]
    if options.epochs is not None:
        limits.append(math.ceil(options.epochs * pictures / (options.batch_size * options.accumulate)))
    return min(limits, default=USUAL_STEPS)
