"""The numbers of a step: fetched from the device at once, added up over the ranks, and refused if not finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, cycle

import torch
from torch import Tensor

from mt_core.adapter import private_tasks
from mt_core.dataset import Batch
from mt_core.errors import NonFiniteError
from mt_core.model import Objective

from .engine import StepResult
from .ranks import Ranks

_ADVICE = "Lower trainer.lr, lengthen trainer.warmup, set trainer.clip, or look at these pictures."

Culprits = Callable[[], Sequence[str]]  # the names of the parameters whose gradient is not finite


def step_result(
    step: int,
    batches: Sequence[Batch],
    losses: Sequence[Mapping[str, Tensor]],
    norm: Tensor,
    objective: Objective,
    ranks: Ranks,
    culprits: Culprits,
) -> StepResult:
    """What a step did, or was about to do.

    Args:
        step: its number, for messages.
        batches: what this rank computed it on.
        losses: of each of them, this rank's part.
        norm: of the whole gradient.
        objective: what was minimised.
        ranks: those that took the step together.
        culprits: asked where the gradient is not finite and no loss says why.

    Raises:
        NonFiniteError: on every rank alike, naming task, step and pictures.
    """
    names = list(losses[0])
    mine = torch.stack([torch.stack([row[name].float() for name in names]) for row in losses])  # (M, K)
    table = ranks.sum(mine.clone()) if ranks.world > 1 else mine
    *values, length = torch.cat([table.flatten(), norm.float().to(table.device).view(1)]).tolist()
    if not all(map(math.isfinite, [*values, length])):
        reason = _losses(batches, names, mine.tolist(), objective) or _labels(batches, length)
        ids = [name for batch in batches for name in batch.ids]
        reasons, pictures = zip(*ranks.gather((reason, ids)), strict=True)
        known = list(filter(None, reasons))
        if not known and math.isfinite(length):
            known = [_sums(names, values, chain(*pictures))]
        if not known:
            known = [_parameters(chain(*pictures), length, objective, culprits())]
        raise NonFiniteError(f"step {step}: {'; '.join(known)}; nothing was changed. {_ADVICE}")
    rows = [values[i : i + len(names)] for i in range(0, len(values), len(names))]
    means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    return StepResult(dict(zip(names, means, strict=True)), length)


def _losses(batches: Sequence[Batch], names: Sequence[str], table: list[list[float]], objective: Objective) -> str:
    """The first of this rank's losses that is not finite, and its pictures; "" where all are."""
    for batch, row in zip(batches, table, strict=True):
        for name, value in zip(names, row, strict=True):
            if not math.isfinite(value):
                what = f"the loss of task {name}" if name in objective.weights else f"the adapter's {name}"
                return f"{what} is {value} on the pictures {', '.join(batch.ids)}"
    return ""


def _sums(names: Sequence[str], values: Sequence[float], pictures: Iterable[str]) -> str:
    """Which loss is too large only once that of every rank is added."""
    name, value = next(each for each in zip(cycle(names), values, strict=False) if not math.isfinite(each[1]))
    return f"the loss {name} of all ranks adds up to {value} on the pictures {', '.join(pictures)}"


def _labels(batches: Sequence[Batch], length: float) -> str:
    """The first of this rank's labels that are not finite: a loss may look past them, its gradient does not."""
    for batch in batches:
        for name, label in batch.labels.items():
            bad = [id for id, picture in zip(batch.ids, label, strict=True) if not bool(torch.isfinite(picture).all())]
            if bad:
                return f"{_what(length)} for task {name}, whose label is not finite, on the pictures {', '.join(bad)}"
    return ""


def _parameters(pictures: Iterable[str], length: float, objective: Objective, bad: Sequence[str]) -> str:
    """Which parameters have the gradient, and the tasks they belong to where they are private."""
    every = list(objective.model.tasks)
    owners = [private_tasks(name, every) for name in bad]
    tasks = dict.fromkeys(task for owned in owners if len(owned) < len(every) for task in owned)
    first = bad[0] if bad else "their sum"
    where = f"for task {', '.join(tasks or every)} (first in {first}), on the pictures {', '.join(pictures)}"
    return f"{_what(length)} {where}"


def _what(length: float) -> str:
    return f"the gradient is not finite ({length})"
