"""The recipe: how a model is run and trained. Nothing heavy is imported: `--help` reads these classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum, auto
from typing import Any

from mt_core.errors import ConfigError


class Precision(StrEnum):
    """Of the arithmetic; parameters stay in single precision."""

    fp32 = auto()
    bf16 = auto()


class Optimizer(StrEnum):
    """AdamW decays weights apart from the gradient, Adam through it."""

    adamw = auto()
    adam = auto()


class Schedule(StrEnum):
    """How the learning rate falls after warm-up."""

    cosine = auto()
    linear = auto()
    constant = auto()


class OnNonfinite(StrEnum):
    """What a loss or a gradient that is not finite does to the run; it never changes a parameter."""

    stop = auto()
    skip = auto()


class OnBadSample(StrEnum):
    """What an annotated picture that cannot be used does: end the command, or be left out."""

    stop = auto()
    skip = auto()


@dataclass
class LossOptions:
    """What training minimises.

    Attributes:
        weights: weight of a task's loss, by task: loss.weights.depth=2; others have their kind's usual weight.
        names: which loss trains a task, by task: loss.names.normals=cosine; others have their kind's first.
        normalise: divide by the sum of the weights.
        penalty: weight of the adapter's regulariser, where it has one.
    """

    weights: dict[str, float] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    normalise: bool = False
    penalty: float = 1.0


@dataclass
class RunningOptions:
    """How a model is run.

    Attributes:
        device: auto (CUDA where there is one), cpu, cuda, cuda:1, ...
        precision: fp32 or bf16 (autocast).
        batch_size: pictures at a time, of all ranks together.
        workers: processes that read pictures; null: one less than the processors, at most 4.
        eval_batches: evaluate on the first so many batches only; null: on all pictures.
        on_bad_sample: what a picture does whose files are missing, damaged or out of range: stop the command, or be
            skipped, that is, replaced by a black picture without annotations.
        max_bad_samples: with skip, how many pictures of a split may be skipped before the command stops.
    """

    device: str = "auto"
    precision: Precision = Precision.fp32
    batch_size: int = 8
    workers: int | None = None
    eval_batches: int | None = None
    on_bad_sample: OnBadSample = OnBadSample.stop
    max_bad_samples: int = 10

    def __post_init__(self) -> None:
        _at_least("trainer", self, batch_size=1, workers=0, eval_batches=1, max_bad_samples=0)


@dataclass
class TrainerOptions(RunningOptions):
    """How a model is trained.

    Attributes:
        max_steps: optimiser steps; null: as many as `epochs` takes, or 1000. With both, the fewer.
        epochs: passes over the training pictures.
        accumulate: batches whose gradients one step averages.
        tasks_per_pass: tasks that go through the encoder together; null: all. Fewer need less memory and give the
            same gradients in more time.
        optimizer: adamw or adam.
        lr: the highest learning rate. It is not scaled with the batch: the paper's rule, 5e-4 * batch / 512, is
            written out in the experiments.
        weight_decay: of matrices and kernels; biases, norms and position tables are never decayed.
        betas: Adam's.
        schedule: cosine, linear or constant, after warm-up.
        warmup: the share of all steps in which the rate rises linearly.
        min_lr: where the rate ends.
        clip: largest norm of the gradient; null: not clipped.
        ema: decay of an average of the weights, which is what is evaluated and saved; null: none.
        eval_before: evaluate the untrained model too, for comparison.
        eval_every: steps between evaluations; null: a tenth of the run.
        log_every: steps between logged lines.
        save_every: steps between saved states, from which resume=RUN goes on; null: after each evaluation.
        keep_states: how many of them are kept.
        on_nonfinite: what a loss or a gradient that is not finite does: stop the run, or skip the step.
        max_skips: with skip, how many steps of the run may be skipped before it stops.
        panels: how many pictures are drawn with their labels and predictions at each evaluation.
        checkpointing: recompute activations of the encoder instead of keeping them.
        compile: compile the model with torch.compile.
    """

    max_steps: int | None = None
    epochs: int | None = None
    accumulate: int = 1
    tasks_per_pass: int | None = None
    optimizer: Optimizer = Optimizer.adamw
    lr: float = 5e-4
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: Schedule = Schedule.cosine
    warmup: float = 0.05
    min_lr: float = 0.0
    clip: float | None = 5.0
    ema: float | None = None
    eval_before: bool = True
    eval_every: int | None = None
    log_every: int = 10
    save_every: int | None = None
    keep_states: int = 2
    on_nonfinite: OnNonfinite = OnNonfinite.stop
    max_skips: int = 10
    panels: int = 4
    checkpointing: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least("trainer", self, max_steps=1, epochs=1, accumulate=1, tasks_per_pass=1, eval_every=1, log_every=1)
        _at_least("trainer", self, lr=0, weight_decay=0, min_lr=0, panels=0, save_every=1, keep_states=1, max_skips=0)
        for name, limit in (("warmup", 1.0), ("ema", 1.0)):
            value = getattr(self, name)
            if value is not None and not 0 <= value < limit:
                raise ConfigError(f"trainer.{name}={value}: expected a number from 0 to below {limit:g}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"trainer.betas={list(self.betas)}: expected two numbers from 0 to below 1")
        if self.clip is not None and not self.clip > 0:
            raise ConfigError(f"trainer.clip={self.clip}: expected a number above 0, or null for no clipping")
        if self.min_lr > self.lr:
            raise ConfigError(f"trainer.min_lr={self.min_lr} is above trainer.lr={self.lr}; lower it")


@dataclass
class LaunchOptions:
    """How many processes take part, where mtrun itself starts them; torchrun, deepspeed and srun say it themselves.

    Attributes:
        ranks: processes on this host, one for each device.
        timeout: minutes that a rank waits for the others before it gives up.
        grace: seconds that ranks have to save and end after a signal, before they are killed.
    """

    ranks: int = 1
    timeout: float = 30.0
    grace: float = 60.0

    def __post_init__(self) -> None:
        _at_least("launch", self, ranks=1, timeout=0, grace=0)


@dataclass
class PlanOptions:
    """What an adapter that plans (TGLoRA) finds out before training, or where it is written.

    Attributes:
        file: one that was made before: a file, a folder of `mtrun plan`, a run or an artefact; null: make one.
        steps: that the decoders are fine-tuned on the frozen backbone; null: a tenth of the run's.
        examples: training pictures that the adapter looks at, at most.
    """

    file: str | None = None
    steps: int | None = None
    examples: int = 100

    def __post_init__(self) -> None:
        _at_least("plan", self, steps=1, examples=1)


@dataclass
class AugmentOptions:
    """How training pictures and their labels are varied.

    Attributes:
        enabled: false: pictures are only resized.
        flip: mirror half of them; null: as the data set's protocol does.
        rotation: largest angle in degrees; null: as the data set's protocol does.
        zoom: lowest and highest factor; null: as the data set's protocol does.
        jitter: strength of changes of brightness, contrast and saturation, 0 to 1.
    """

    enabled: bool = True
    flip: bool | None = None
    rotation: float | None = None
    zoom: tuple[float, float] | None = None
    jitter: float = 0.0


def _at_least(where: str, options: Any, **lowest: float) -> None:
    for name, bound in lowest.items():
        value = getattr(options, name)
        if value is not None and not value >= bound:
            raise ConfigError(f"{where}.{name}={value}: expected at least {bound:g}")
