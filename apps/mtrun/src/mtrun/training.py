"""The training loop, written once for every engine."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from itertools import islice
from typing import Any

from mt_core.accounting import count_parameters
from mt_core.build import build
from mt_core.dataset import Batch, Samples
from mt_core.errors import CheckpointError, ConfigError, DataError, MTError, NonFiniteError, PluginError
from mt_core.model import Objective

from .balancing import refuse, split_parameters
from .costs import Meter
from .data import (
    derived_seed,
    evaluated_pictures,
    evaluation_batches,
    note_skipped,
    open_samples,
    start_generators,
    training_batches,
)
from .environment import environment
from .evaluation import departures_of, directions, evaluate, rounds_of
from .job import Job, device_of, transforms
from .listeners import EvaluationReport, Listener, Session, StepReport
from .optimizers import learning_rate
from .places import met_by_all, place
from .progress import Progress, step_count
from .ranks import ALONE, Ranks, attempt
from .recipe import OnBadSample, OnNonfinite
from .resuming import Saved
from .signals import Terminated, shielded

log = logging.getLogger(__name__)


class Training:
    """A training run, made ready: the pictures are found, the model is built. Nothing is written.

    Args:
        job: what to train.
        saved: what to go on from.
        ranks: the processes that train together; all of them make this alike, and `run` it together.

    Raises:
        DataError: if a split is empty or incomplete.
        ConfigError, CheckpointError: if the model cannot be built, or is not the one that was saved.
    """

    def __init__(self, job: Job, saved: Saved | None = None, ranks: Ranks = ALONE) -> None:
        self.job, self.options, self.ranks = job, job.config.trainer, ranks
        self.device = device_of(self.options.device, place())
        job.engine.refuse(self.options, ranks.world)
        self.progress = Progress() if saved is None else saved.progress
        ranks.alike(self._build)
        job.engine.prepare(self.objective, self.options, self.device, ranks, job.balancer)
        self.directions = directions(job.protocol, job.tasks)
        self.departures = departures_of(job.protocol, job.config.dataset["name"], job.tasks, job.spec.image_size)
        self.bad_val_samples = {} if self.progress.last is None else dict(self.progress.last.skipped)
        if saved is not None:
            with met_by_all():
                self._restore(saved)

    def _build(self) -> None:
        """Find the pictures, and build the model."""
        job, loss = self.job, self.job.config.loss
        self.transforms = transforms(job)
        self.train_split, self.val_split = (self._split(name) for name in ("train", "val"))
        self.steps = step_count(self.options, len(self.train_split), self.progress)
        self.built = build(job.spec, job.engine.home(self.device))
        self.counts = count_parameters(self.built.model, job.spec.image_size)
        self.meter = Meter(self.built.model, self.counts, job.spec.image_size, self.device)
        self.objective = Objective(self.built.model, loss.weights, loss.normalise, loss.penalty)
        self._balance()

    def run(self, listeners: Sequence[Listener]) -> dict[str, Any]:
        """Train, tell the listeners of every step and evaluation, and say what came out.

        Raises:
            DataError: if a picture or a label cannot be used.
            NonFiniteError: if a loss or a gradient is not finite. What was saved last, before, is left the newest.
            PluginError: if a plugin fails in a hook.
            CheckpointError: if a listener cannot write.
            Terminated, KeyboardInterrupt: when told to stop.
        """
        self.listeners = list(listeners)
        pictures = len(self.train_split)
        session = Session(self.job, self.built, self.steps, pictures, self.directions)
        with shielded():  # a signal waits until all ranks know of it
            try:
                self.ranks.agree(self._told(lambda listener: listener.on_start(session)))
                self._train()
            except (Terminated, KeyboardInterrupt, DataError, PluginError):
                self._stop()
                raise
            result = self.result()
            self.ranks.agree(self._told(lambda listener: listener.on_end(result)))
        return result

    def result(self) -> dict[str, Any]:
        """What `result.json` holds."""
        progress, config = self.progress, self.job.config
        return {
            "protocol": self.job.protocol.name,
            "departures": self.departures,
            "dataset": config.dataset["name"],
            "dataset_notes": self.job.dataset.notes(self.job.tasks),
            "adapter": self.job.spec.adapter.name,
            "backbone": self.job.spec.backbone.name,
            "decoder": self.job.spec.decoder.name,
            "backbone_init": "random" if self.built.random else "pretrained",
            "base_sha256": self.built.base,
            "tasks": {task.name: task.channels for task in self.job.tasks},
            "image_size": list(self.job.spec.image_size),
            "images": None if progress.last is None else progress.last.images,
            "metrics": {
                name: None if found is None else found.metrics
                for name, found in (("before", progress.before), ("final", progress.last), ("best", progress.best))
            },
            "directions": self.directions,
            "best": {"step": progress.best_step, "by": "lowest weighted validation loss", "loss": self._best_loss()},
            "weights": {"average": "none" if self.options.ema is None else "exponential", "decay": self.options.ema},
            "parameters": self.counts.to_json(),
            "engine": {**config.engine, "ranks": self.ranks.world},
            "balancer": config.balancer,
            **self.meter.result(),
            "seed": config.seed,
            "steps": progress.step,
            "skipped_steps": progress.skipped,
            "skipped_pictures": {"train": list(progress.bad_samples), "val": list(self.bad_val_samples)},
            "seconds": progress.seconds,
            "images_per_second": progress.position / max(progress.seconds, 1e-9),
            "environment": environment(self.device),
        }

    def _train(self) -> None:
        """Every rank does the same things in the same order; what one of them meets, all raise at the same place."""
        progress = self.progress
        with closing(self._batches()) as batches:
            while True:
                if progress.evaluated < progress.step and self._is_due(progress.step):
                    self._evaluate()
                if self._is_to_be_saved():
                    self._save()
                if progress.step >= self.steps:
                    return
                started = time.perf_counter()
                group, error = attempt(lambda: list(islice(batches, self.options.accumulate)))
                self.ranks.agree(error)
                assert group is not None
                self._note_skipped(group)
                self.ranks.agree(self._step(progress.step + 1, group, started))

    def _note_skipped(self, group: Sequence[Batch]) -> None:
        """Count the pictures that some rank could not use. Raises DataError where there are too many."""
        found = {name: why for batch in group for name, why in batch.skipped.items()}
        if self.options.on_bad_sample is OnBadSample.skip:
            found = {name: why for each in self.ranks.gather(found) for name, why in each.items()}
        note_skipped(self.progress.bad_samples, found, "train", self.options)

    def _is_due(self, step: int) -> bool:
        """Whether the model is to be evaluated after a step."""
        if step == 0:
            return self.options.eval_before
        return step == self.steps or step % (self.options.eval_every or max(1, self.steps // 10)) == 0

    def _is_to_be_saved(self) -> bool:
        step, every = self.progress.step, self.options.save_every
        if step in (0, self.steps):
            return step > 0
        return self.progress.evaluated == step if every is None else step % every == 0

    def _step(self, step: int, group: Sequence[Batch], started: float) -> BaseException | None:
        """Take a step; what a listener has met."""
        # What is random inside the model follows from seed and step, as the data do: there is no state to keep.
        start_generators(derived_seed(self.job.config.seed, step, self.ranks.rank))
        rate = learning_rate(step - 1, self.steps, self.options)
        try:
            result = self.job.engine.step(step, group, rate)
        except NonFiniteError as error:
            if self.options.on_nonfinite is OnNonfinite.stop:
                raise
            self._skip(error)
            result = None
        took, pictures = time.perf_counter() - started, len(group) * self.options.batch_size
        self.meter.step(took)
        progress = self.progress
        progress.step, progress.position, progress.seconds = step, progress.position + pictures, progress.seconds + took
        if result is None:
            return None
        report = StepReport(
            step=step,
            result=result,
            loss=sum(self.objective.weights[task.name] * result.losses[task.name] for task in self.job.tasks),
            rate=rate,
            images_per_second=pictures / took,
            seconds=self.progress.seconds,
            logged=step % self.options.log_every == 0 or step in (1, self.steps),
        )
        return self._told(lambda listener: listener.on_step(report))

    def _skip(self, error: NonFiniteError) -> None:
        if self.progress.skipped >= self.options.max_skips:
            raise NonFiniteError(
                f"{error} {self.progress.skipped} steps were skipped before it, which is all that "
                f"trainer.max_skips={self.options.max_skips} allows."
            ) from error
        self.progress.skipped += 1
        log.warning("%s The step is skipped: %d of at most %d", error, self.progress.skipped, self.options.max_skips)

    def _evaluate(self) -> None:
        progress, engine, ranks = self.progress, self.job.engine, self.ranks
        count = evaluated_pictures(self.val_split, self.options)
        with closing(self._val_batches()) as batches, engine.averaged():
            found = evaluate(
                self.built.model,
                batches,
                self.job.protocol,
                self.device,
                logits=engine.logits,
                pictures=self.options.panels,
                rounds=rounds_of(count, self.options.batch_size, ranks) if ranks.world > 1 else None,
                ranks=ranks,
            )
        note_skipped(self.bad_val_samples, found.skipped, "val", self.options)
        loss = found.objective(self.objective.weights)
        best = progress.step > 0 and loss < self._best_loss()
        progress.last, progress.evaluated = found, progress.step
        if progress.step == 0:
            progress.before = found
        if best:
            progress.best, progress.best_step = found, progress.step
        report = EvaluationReport(progress.step, found, loss, best)
        state = engine.state()  # all ranks have a part in it
        ranks.agree(self._told(lambda listener: listener.on_evaluation(report, state)))

    def _best_loss(self) -> float:
        return self.progress.best_loss(self.objective.weights)

    def _save(self) -> None:
        snapshot = self.job.engine.snapshot()  # all ranks have a part in it
        self.ranks.agree(self._told(lambda listener: listener.on_save(self.progress, snapshot)))

    def _stop(self) -> None:
        """Save what there is, and say so."""
        self._save()
        state = self.job.engine.state()
        self.ranks.agree(self._told(lambda listener: listener.on_stop(self.progress.step, state)))

    def _balance(self) -> None:
        """Start the balancer. Raises ConfigError where it would not be right."""
        job, tasks = self.job, [task.name for task in self.job.tasks]
        trained = {name: p for name, p in self.built.model.named_parameters() if p.requires_grad}
        shared, _ = split_parameters(trained, tasks)
        stage, name = int(getattr(job.engine, "stage", 0)), job.config.balancer["name"]
        refuse(name, job.balancer, self.options, stage=stage, tasks=tasks, shared=len(shared))
        size = self.options.batch_size * self.options.accumulate
        job.balancer.start(tasks, job.config.seed, max(1, math.ceil(len(self.train_split) / size)))

    def _restore(self, saved: Saved) -> None:
        """Raises ConfigError or CheckpointError where going on would be another run."""
        if saved.pictures != len(self.train_split):
            raise ConfigError(
                f"the training split has {len(self.train_split)} pictures, it had {saved.pictures} when the run was "
                f"saved: its order is another one; restore the data set, or start a new run"
            )
        if saved.base != self.built.base:
            raise CheckpointError(
                f"the frozen weights of backbone {self.job.spec.backbone.name} have hash {self.built.base[:12]}, the "
                f"run was trained on {saved.base[:12]}; give the weights it was trained with: backbone.checkpoint=FILE"
            )
        if self.steps < self.progress.step:
            raise ConfigError(
                f"the run has taken {self.progress.step} steps already, more than the {self.steps} asked for; raise "
                f"trainer.max_steps or trainer.epochs"
            )
        self.job.engine.restore(saved.tensors)

    def _split(self, name: str) -> Samples:
        samples = open_samples(self.job.dataset, name, self.job.tasks, self.options)
        if not len(samples):
            raise DataError(f"split {name!r} of data set {self.job.config.dataset['name']} has no picture; add some")
        return samples

    def _batches(self) -> Generator[Batch, None, None]:
        """Those of the steps that are left."""
        size, start = self.options.batch_size, self.progress.position
        count = (self.steps - self.progress.step) * self.options.accumulate
        return training_batches(
            self.train_split,
            self.transforms[0],
            self.job.tasks,
            self.options,
            self.job.config.seed,
            self.device,
            range(start, start + count * size, size),
            self.ranks,
        )

    def _val_batches(self) -> Generator[Batch, None, None]:
        return evaluation_batches(
            self.val_split, self.transforms[1], self.job.tasks, self.options, self.device, self.ranks
        )

    def _told(self, what: Callable[[Listener], None]) -> BaseException | None:
        """Tell the listeners; what one of them meets, so that all ranks can raise it together."""
        try:
            for listener in self.listeners:
                what(listener)
        except MTError as error:
            return error
        return None
