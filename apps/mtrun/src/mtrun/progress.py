"""How far a training run is: all of it that is not in the engine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mt_core.options import from_dict

from .evaluation import Evaluation
from .json_values import plain_numbers
from .recipe import TrainerOptions

USUAL_STEPS = 1000  # of a run that names neither steps nor epochs


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        step: steps taken, those that were skipped included.
        position: training pictures taken from the stream.
        skipped: steps that changed nothing, because a number was not finite.
        seconds: that the steps took, with waiting for data and without evaluations.
        evaluated: the step after which the model was last evaluated; -1 if it never was.
        before, last, best: evaluations of the untrained model, after the last one made, and with the lowest loss.
        best_step: the step after which `best` was made; 0 without one.
        bad_samples: training pictures that could not be used and were skipped: their ids, and why.
    """

    step: int = 0
    position: int = 0
    skipped: int = 0
    seconds: float = 0.0
    evaluated: int = -1
    before: Evaluation | None = None
    last: Evaluation | None = None
    best: Evaluation | None = None
    best_step: int = 0
    bad_samples: dict[str, str] = field(default_factory=dict)

    def best_loss(self, weights: Mapping[str, float]) -> float:
        """The lowest weighted validation loss; infinite where nothing was evaluated."""
        return math.inf if self.best is None else self.best.objective(weights)

    def forget_best(self) -> None:
        """Look for the best from here on."""
        self.best, self.best_step = None, 0

    def to_json(self) -> dict[str, Any]:
        """The inverse of `from_json`, but for the pictures of the evaluations."""
        values: dict[str, Any] = {**vars(self), **{name: self._plain(name) for name in _EVALUATIONS}}
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Progress:
        """Read it back.

        Raises:
            ConfigError: if a field is unknown or of the wrong type.
        """
        found = {name: _evaluation(values.get(name)) for name in _EVALUATIONS}
        return from_dict(cls, {**values, **found}, "progress")

    def _plain(self, name: str) -> dict[str, Any] | None:
        found: Evaluation | None = getattr(self, name)
        if found is None:
            return None
        numbers = {"metrics": plain_numbers(found.metrics), "losses": plain_numbers(found.losses)}
        return {**numbers, "images": found.images, "skipped": found.skipped}


def step_count(options: TrainerOptions, pictures: int, progress: Progress | None = None) -> int:
    """How many steps a run takes on a data set of so many pictures, those that it has taken included."""
    progress = progress or Progress()
    limits = [] if options.max_steps is None else [options.max_steps]
    if options.epochs is not None:
        left = options.epochs * pictures - progress.position
        limits.append(progress.step + math.ceil(left / (options.batch_size * options.accumulate)))
    return min(limits, default=USUAL_STEPS)


_EVALUATIONS = ("before", "last", "best")


def _evaluation(values: Any) -> Evaluation | None:
    """null stands for what is not a number."""
    if not isinstance(values, Mapping):
        return None
    numbers = _with_nan({name: values.get(name, {}) for name in ("metrics", "losses")})
    return from_dict(Evaluation, {**values, **numbers}, "evaluation")


def _with_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_nan(item) for key, item in value.items()}
    return math.nan if value is None else value
