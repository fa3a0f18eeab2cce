"""What a training run tells those who listen: the display, the run's folder, the plugins."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from mt_core.build import Built
from mt_core.discovery import plugins
from mt_core.errors import PluginError

from .engine import StepResult
from .evaluation import Evaluation
from .job import Job
from .progress import Progress


@dataclass(frozen=True)
class Session:
    """A training run that is about to start.

    Attributes:
        steps: how many it will take.
        pictures: in the training split.
        directions: for every metric of every task, whether `higher` or `lower` is better.
    """

    job: Job
    built: Built
    steps: int
    pictures: int
    directions: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class StepReport:
    """A step that was taken, counted from 1.

    Attributes:
        loss: the weighted sum that was minimised, without the regulariser.
        logged: whether it belongs into the log.
        seconds: since the run's first step began, evaluations left out.
    """

    step: int
    result: StepResult
    loss: float
    rate: float
    images_per_second: float
    seconds: float
    logged: bool


@dataclass(frozen=True)
class EvaluationReport:
    """An evaluation after `step` steps.

    Attributes:
        loss: weighted sum of the validation losses.
        best: whether no earlier evaluation of the trained model had a lower one.
    """

    step: int
    evaluation: Evaluation
    loss: float
    best: bool


class Listener:
    """Hears of everything, on the main rank alone; by default does nothing."""

    def on_start(self, session: Session) -> None:
        """Training is about to start."""

    def on_step(self, report: StepReport) -> None:
        """A step was taken."""

    def on_evaluation(self, report: EvaluationReport, state: Mapping[str, Tensor]) -> None:
        """The model was evaluated with the trained weights `state`."""

    def on_save(self, progress: Progress, snapshot: Mapping[str, Tensor]) -> None:
        """The state of the run is to be saved, so that it can go on from there; `snapshot` is the engine's."""

    def on_stop(self, step: int, state: Mapping[str, Tensor]) -> None:
        """Training ends early, after `step` steps, with the trained weights `state`."""

    def on_end(self, result: dict[str, Any]) -> None:
        """Training is done."""


@dataclass(frozen=True)
class RunInfo:
    """The `run` of the hooks: where it is written, and how it was configured (plain values)."""

    folder: Path
    config: Mapping[str, Any]


class Hooks(Listener):
    """Passes steps and evaluations on to the plugins.

    Raises:
        PluginError: if a plugin raises anything, naming the plugin.
    """

    def __init__(self, run: RunInfo) -> None:
        self.run = run

    def on_step(self, report: StepReport) -> None:
        self._call("mt_step_end", step=report.step, losses=report.result.losses)

    def on_evaluation(self, report: EvaluationReport, state: Mapping[str, Tensor]) -> None:
        self._call("mt_eval_end", step=report.step, metrics=report.evaluation.metrics)

    def _call(self, name: str, **arguments: Any) -> None:
        hook = getattr(plugins().hook, name)
        try:
            hook(run=self.run, **arguments)
        except Exception as error:
            codes = {impl.function.__code__: impl.plugin_name for impl in hook.get_hookimpls()}
            frames = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
            culprit = next((codes[code] for code in frames if code in codes), "?")
            raise PluginError(
                f"plugin {culprit!r} failed in {name}: {type(error).__name__}: {error}; "
                f"mend it, or leave it out with MT_BLOCK={culprit}"
            ) from error
