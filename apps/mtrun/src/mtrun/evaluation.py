"""Evaluation: the metrics of a protocol and the loss of every task, over a whole split."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from mt_core.dataset import Batch
from mt_core.model import MultiTaskModel
from mt_core.protocols import Protocol
from mt_core.task import Task

from .ranks import ALONE, Ranks, attempt

log = logging.getLogger(__name__)

Scores = dict[str, dict[str, float]]  # by task, by name of the metric
Logits = Callable[[Tensor], dict[str, Tensor]]  # of pictures (B, 3, H, W), without gradients

_MANY = 1 << 20  # pictures, more than a batch has


@dataclass(frozen=True)
class Picture:
    """One picture with what was annotated and what was predicted, on the CPU.

    Attributes:
        image: (3, H, W) in [0, 1].
        labels, predictions: by task; without a batch axis, in the units of the label.
        place: in the split, as far as the order of those that are kept goes.
    """

    id: str
    image: Tensor
    labels: dict[str, Tensor]
    predictions: dict[str, Tensor]
    place: int = 0


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        metrics: metrics[task][name]; NaN where nothing was annotated.
        losses: of each task, a mean over its annotated pictures; NaN where there are none.
        images: how many pictures, those that were skipped left out.
        pictures: the first of them.
        skipped: ids of pictures that could not be used, and why.
    """

    metrics: Scores
    losses: dict[str, float]
    images: int
    pictures: list[Picture] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def objective(self, weights: Mapping[str, float]) -> float:
        """The weighted sum of the losses; infinite where nothing was annotated at all."""
        terms = [weights[name] * loss for name, loss in self.losses.items() if not math.isnan(loss)]
        return sum(terms) if terms else math.inf


def directions(protocol: Protocol, tasks: Iterable[Task]) -> dict[str, dict[str, str]]:
    """For every metric of every task, whether `higher` or `lower` is better."""
    return {
        task.name: {
            name: "higher" if metric.higher_is_better else "lower" for name, metric in protocol.metrics(task).items()
        }
        for task in tasks
    }


def departures_of(protocol: Protocol, dataset: str, tasks: Iterable[Task], size: tuple[int, int]) -> list[str]:
    """Where a run is not as the protocol's papers have it; each said once in the log."""
    found = protocol.departures(dataset, tasks, size)
    for sentence in found:
        log.warning("%s; the numbers are not comparable with the papers'", sentence)
    return found


def evaluate(
    model: MultiTaskModel,
    batches: Iterable[Batch],
    protocol: Protocol,
    device: torch.device,
    *,
    logits: Logits | None = None,
    pictures: int = 0,
    rounds: int | None = None,
    ranks: Ranks = ALONE,
) -> Evaluation:
    """Run the model's selected tasks over annotated pictures.

    With several ranks, each has every `ranks.world`-th batch, and all of them find the same.

    Args:
        model: on `device`; left in evaluation mode.
        batches: each picture once, on one of the ranks.
        protocol: names the metrics.
        logits: computes them; all ranks call it equally often. None: the model, as it is.
        pictures: how many of the pictures are kept with their predictions.
        rounds: how many batches the rank with the most of them has; needed with several ranks.

    Raises:
        MTError, Terminated, KeyboardInterrupt: what a rank meets while it waits for a batch; on all of them.
    """
    tasks = {name: model.tasks[name] for name in model.selected}
    measures = {name: protocol.metrics(task) for name, task in tasks.items()}
    metrics: dict[str, Any] = {name: MetricCollection(dict(found)).to(device) for name, found in measures.items()}
    for metric in (metric for found in measures.values() for metric in found.values()):
        metric.sync_on_compute = ranks.world > 1  # rank 0 may evaluate by itself
    sums = torch.zeros(len(tasks), 2, dtype=torch.float64, device=device)  # loss, pictures
    images = torch.zeros(1, dtype=torch.float64, device=device)
    kept: list[Picture] = []
    skipped: dict[str, str] = {}
    logits = torch.no_grad()(model) if logits is None else logits
    model.eval()
    for number, batch in enumerate(_in_step(iter(batches), rounds, ranks)):
        if batch is None:  # the others still have one, and at ZeRO-3 they need this rank to compute theirs
            logits(torch.zeros(1, 3, *_size(model), device=device))
            continue
        batch = batch.to(device)
        said = logits(batch.images)
        predictions = {name: tasks[name].predict(x.float()) for name, x in said.items()}
        for row, (name, prediction) in zip(sums, predictions.items(), strict=True):
            metrics[name].update(prediction, batch.labels[name])
            present = batch.present[name].sum()
            loss = tasks[name].loss(said[name], batch.labels[name])
            row += torch.stack([(loss * present).double(), present.double()])
        images += len(batch.ids) - len(batch.skipped)
        skipped |= batch.skipped
        if len(kept) < pictures:
            place = (number * ranks.world + ranks.rank) * _MANY
            kept += _pictures(batch, predictions, pictures - len(kept), place)
    ranks.sum(sums)
    ranks.sum(images)
    losses = {name: float(total[0] / total[1]) for name, total in zip(tasks, sums, strict=True)}
    computed = {name: found.compute() for name, found in metrics.items()}  # the collection sorts its names
    scores = {task: {name: float(computed[task][name]) for name in found} for task, found in measures.items()}
    every = {name: why for found in ranks.gather(skipped) for name, why in found.items()}
    return Evaluation(scores, losses, int(images), _first(kept, pictures, ranks), every)


def rounds_of(pictures: int, batch_size: int, ranks: Ranks) -> int:
    """How many batches the rank with the most of them has."""
    return -(-pictures // (batch_size * ranks.world))


def _in_step(batches: Iterator[Batch], rounds: int | None, ranks: Ranks) -> Iterator[Batch | None]:
    """This rank's batches, and None where it has none left but others do; what one rank meets, all raise."""
    for _ in count() if rounds is None else range(rounds):
        batch, error = attempt(lambda: next(batches, None))
        ranks.agree(error)
        if batch is None and ranks.world == 1:
            return
        yield batch


def _first(kept: list[Picture], wanted: int, ranks: Ranks) -> list[Picture]:
    """The first pictures of the split, from the batches of all ranks."""
    if ranks.world == 1 or not wanted:
        return kept
    every = [picture for found in ranks.gather(kept) for picture in found]
    return sorted(every, key=lambda picture: picture.place)[:wanted]


def _size(model: MultiTaskModel) -> tuple[int, int]:
    assert model.origin is not None
    return model.origin.spec.image_size


def _pictures(batch: Batch, predictions: Mapping[str, Tensor], wanted: int, first: int) -> list[Picture]:
    usable = [i for i, name in enumerate(batch.ids) if name not in batch.skipped]
    return [
        Picture(
            batch.ids[i],
            batch.images[i].cpu(),
            {name: batch.labels[name][i].cpu() for name in predictions},
            {name: x[i].cpu() for name, x in predictions.items()},
            first + i,
        )
        for i in usable[: max(0, wanted)]
    ]
