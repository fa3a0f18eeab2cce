"""Evaluation: the metrics of a protocol and the loss of every task, over a whole split."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from mt_core.dataset import Batch
from mt_core.model import MultiTaskModel
from mt_core.protocols import Protocol
from mt_core.task import Task

from .recipe import Precision
from .torch_engine import autocast

Scores = dict[str, dict[str, float]]  # by task, by name of the metric


@dataclass(frozen=True)
class Picture:
    """One picture with what was annotated and what was predicted, on the CPU.

    Attributes:
        image: (3, H, W) in [0, 1].
        labels, predictions: by task; without a batch axis, in the units of the label.
    """

    id: str
    image: Tensor
    labels: dict[str, Tensor]
    predictions: dict[str, Tensor]


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


def evaluate(
    model: MultiTaskModel,
    batches: Iterable[Batch],
    protocol: Protocol,
    device: torch.device,
    precision: Precision = Precision.fp32,
    pictures: int = 0,
) -> Evaluation:
    """Run the model's selected tasks over annotated pictures.

    Args:
        model: on `device`; left in evaluation mode.
        batches: each picture once.
        protocol: names the metrics.
        pictures: how many of the pictures are kept with their predictions.
    """
    tasks = {name: model.tasks[name] for name in model.selected}
    measures = {name: protocol.metrics(task) for name, task in tasks.items()}
    metrics: dict[str, Any] = {name: MetricCollection(dict(found)).to(device) for name, found in measures.items()}
    sums = {name: torch.zeros(2, dtype=torch.float64, device=device) for name in tasks}  # loss, pictures
    kept: list[Picture] = []
    images, skipped = 0, dict[str, str]()
    model.eval()
    with torch.inference_mode():
        for batch in batches:
            batch = batch.to(device)
            with autocast(device, precision):
                logits = model(batch.images)
            predictions = {name: tasks[name].predict(x.float()) for name, x in logits.items()}
            for name, prediction in predictions.items():
                metrics[name].update(prediction, batch.labels[name])
                count = batch.present[name].sum()
                loss = tasks[name].loss(logits[name], batch.labels[name])
                sums[name] += torch.stack([(loss * count).double(), count.double()])
            images += len(batch.ids) - len(batch.skipped)
            skipped |= batch.skipped
            kept += _pictures(batch, predictions, pictures - len(kept))
    losses = {name: float(total[0] / total[1]) for name, total in sums.items()}
    computed = {name: found.compute() for name, found in metrics.items()}  # the collection sorts its names
    scores = {task: {name: float(computed[task][name]) for name in found} for task, found in measures.items()}
    return Evaluation(scores, losses, images, kept, skipped)


def _pictures(batch: Batch, predictions: Mapping[str, Tensor], wanted: int) -> list[Picture]:
    usable = [i for i, name in enumerate(batch.ids) if name not in batch.skipped]
    return [
        Picture(
            batch.ids[i],
            batch.images[i].cpu(),
            {name: batch.labels[name][i].cpu() for name in predictions},
            {name: x[i].cpu() for name, x in predictions.items()},
        )
        for i in usable[: max(0, wanted)]
    ]
