"""The overall gain of a model over a baseline: Delta_m and Delta_b, in percent.

Both are means over tasks of the signed relative change; they differ in what stands for a task:

    Delta_m   one metric, the first (Maninis et al., CVPR 2019; MTLoRA, equation 3; TGLoRA, equation 7)
    Delta_b   the mean over its metrics (TA-LoRA, section 4, where the baseline is hard parameter sharing)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from .errors import ConfigError

Scores = Mapping[str, Mapping[str, float]]  # by task, by name of the metric; the first of a task is its main one
Directions = Mapping[str, Mapping[str, str]]  # the same names -> "higher" or "lower", whichever is better

_PRINTED = (
    "miou", "pixel_accuracy", "abs_err", "rel_err", "mean_angle", "median_angle",
    "within_11_25", "within_22_5", "within_30",
)  # fmt: skip

# By protocol, what its papers print of a task where that is more than the first metric: Delta_b is a mean over these.
COUNTED: Mapping[str, tuple[str, ...]] = {"mtan": _PRINTED, "mtsam": _PRINTED}


def relative_change(value: float, baseline: float, direction: str) -> float:
    """How much better a metric is than the baseline's, in percent of that; negative where it is worse.

    NaN if either is NaN, or the baseline is 0: no change is relative to nothing.

    Args:
        direction: `higher` or `lower`, whichever is better.
    """
    if direction not in ("higher", "lower"):
        raise ConfigError(f"direction {direction!r} of a metric: expected 'higher' or 'lower'")
    if not baseline:
        return math.nan
    change = 100 * (value - baseline) / baseline
    return change if direction == "higher" else -change


def delta_m(scores: Scores, baseline: Scores, directions: Directions) -> float:
    """The mean over tasks of the signed relative change of each task's first metric, in percent.

    Args:
        scores: of the model; its tasks and their order of metrics are those that count.
        baseline: must have these tasks and metrics; it may have more.

    Raises:
        ConfigError: if the baseline lacks one, or there is no task.
    """
    return delta_b({task: dict(list(found.items())[:1]) for task, found in scores.items()}, baseline, directions)


def delta_b(scores: Scores, baseline: Scores, directions: Directions) -> float:
    """The mean over tasks of the mean over a task's metrics of the signed relative change, in percent.

    Arguments and errors as of `delta_m`. NaN as soon as one change is: nothing is left out of the mean silently.
    """
    for task, found in scores.items():
        if missing := [name for name in found if name not in baseline.get(task, {})]:
            raise ConfigError(f"the baseline has no {missing[0]} of task {task}; give one that was measured likewise")
    if not scores or not all(scores.values()):
        raise ConfigError("a delta is a mean over tasks and their metrics; there is none")
    return _mean(
        _mean(relative_change(value, baseline[task][name], directions[task][name]) for name, value in found.items())
        for task, found in scores.items()
    )


def counted(scores: Scores, protocol: str) -> dict[str, dict[str, float]]:
    """Of each task, the metrics that Delta_b counts: what the protocol's papers print, which for most is the first."""
    names = COUNTED.get(protocol, ())
    kept = {task: {name: value for name, value in found.items() if name in names} for task, found in scores.items()}
    return {task: found or dict(list(scores[task].items())[:1]) for task, found in kept.items()}


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return math.fsum(found) / len(found)
