"""One model for all tasks: a backbone, an adapter in it, and a decoder per task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .adapter import Adapter, SiteModule
from .attachment import attach
from .backbone import Encoder
from .dataset import Batch
from .decoder import Decoder
from .distributed import everywhere, is_dealt_out, processes
from .errors import ConfigError
from .task import Task

if TYPE_CHECKING:
    from .build import Origin


class MultiTaskModel(nn.Module):
    """Images to the logits of every task.

    Args:
        encoder: a plain encoder with its pretrained weights; the adapter is put into it, in place.
        adapter: what to train in it.
        decoder: builds one head per task.
        tasks: what to predict, in the order that everything keeps.

    Attributes:
        origin: the description it was built from, which an artefact needs; None if it was put together by hand.
    """

    mean: Tensor
    std: Tensor
    origin: Origin | None = None

    def __init__(self, encoder: Encoder, adapter: Adapter, decoder: Decoder, tasks: Sequence[Task]) -> None:
        super().__init__()
        self.tasks = {task.name: task for task in tasks}
        self.adapter, self.attachment = adapter, attach(adapter, encoder, tuple(self.tasks))
        self.encoder = encoder
        self.decoders = nn.ModuleDict({task.name: decoder.build(task, encoder) for task in tasks})
        device = next(encoder.parameters()).device
        self.register_buffer("mean", torch.tensor(encoder.mean, device=device).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(encoder.std, device=device).view(3, 1, 1), persistent=False)

    @property
    def selected(self) -> tuple[str, ...]:
        """The tasks that a forward predicts."""
        return self.attachment.selected

    def select(self, tasks: Iterable[str]) -> None:
        """Predict only these tasks from now on, and compute no stream that they do not need."""
        self.attachment.select(tasks)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Pixels in [0, 1], (B, 3, H, W) -> {task: logits (B, N_t, H, W)} for the selected tasks."""
        levels = self.encoder((images - self.mean) / self.std)
        size = images.shape[-2:]
        return {
            name: F.interpolate(self.decoders[name](features), size=size, mode="bilinear", align_corners=False)
            for name, features in self.attachment.features(levels).items()
        }

    def predict(self, images: Tensor) -> dict[str, Tensor]:
        """Pixels in [0, 1], (B, 3, H, W) -> {task: prediction in the units of its labels}, without gradients."""
        with torch.no_grad():
            return {name: self.tasks[name].predict(logits) for name, logits in self(images).items()}

    def save_pretrained(self, folder: str | Path) -> None:
        """Write its artefact into a new folder. See `mt_core.hub`."""
        from .hub import save_pretrained

        save_pretrained(self, folder)

    @classmethod
    def from_pretrained(
        cls, name: str | Path, device: str | torch.device = "cpu", *, checkpoint: str = "", revision: str | None = None
    ) -> MultiTaskModel:
        """A trained model from a folder or from the Hugging Face hub. See `mt_core.hub`."""
        from .hub import from_pretrained

        return from_pretrained(name, device, checkpoint=checkpoint, revision=revision)

    def push_to_hub(self, repo: str, *, private: bool = False) -> str:
        """Put its artefact into a repository of the Hugging Face hub; the address. See `mt_core.hub`."""
        from .hub import push_to_hub

        return push_to_hub(self, repo, private=private)

    def penalty(self) -> Tensor | None:
        """The adapter's regulariser over all its sites: (), or None where it has none."""
        found = [m.penalty() for m in self.encoder.modules() if isinstance(m, SiteModule)]
        terms = [term for term in found if term is not None]
        return self.adapter.pool(torch.cat(terms)) if terms else None


class Objective(nn.Module):
    """What training minimises: the weighted sum of the tasks' losses, and the adapter's regulariser.

    A module whose forward holds the whole computation, because that is what distributed engines wrap: parameters are
    gathered during its forward only.

    Args:
        model: what is trained.
        weights: weight of a task's loss, by task name; a task that is not named has its kind's usual weight.
        normalise: divide by the sum of the weights (ToRA, eq. 6).
        penalty: weight of the adapter's regulariser.

    Raises:
        ConfigError: if `weights` names a task that the model has not, or all weights are 0.
    """

    def __init__(
        self, model: MultiTaskModel, weights: Mapping[str, float], normalise: bool = False, penalty: float = 1.0
    ) -> None:
        super().__init__()
        self.model = model
        if unknown := sorted(weights.keys() - model.tasks.keys()):
            raise ConfigError(f"weights name task {unknown[0]!r}; the model has {', '.join(model.tasks)}")
        every = {name: float(weights.get(name, task.weight)) for name, task in model.tasks.items()}
        if not any(every.values()):
            raise ConfigError(f"the weights of all losses are 0 ({', '.join(every)}): nothing would be trained")
        total = sum(every.values()) if normalise else 1.0
        self.weights = {name: weight / total for name, weight in every.items()}
        self.penalty_weight = penalty

    def forward(self, batch: Batch, share: float = 1.0) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the selected tasks on a batch, and each part of it, unweighted and detached.

        Within `mt_core.distributed.together` the batch is a part of one that is dealt out to several processes: their
        losses add up to the loss of the whole, and so do their parts.

        Args:
            batch: pictures and labels.
            share: the part of the regulariser that this pass counts, where a step takes several.
        """
        terms, parts = self.terms(batch, share)
        return torch.stack(list(terms.values())).sum(), parts

    def terms(self, batch: Batch, share: float = 1.0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """As `forward`, with the weighted loss of each task, and the "penalty", instead of their sum."""
        logits = self.model(batch.images)
        losses = {name: self.model.tasks[name].loss(x, batch.labels[name]) for name, x in logits.items()}
        if is_dealt_out():
            parts = self._parts_of_pixels(batch, list(losses))
            losses = {name: part.to(loss) * loss for (name, loss), part in zip(losses.items(), parts, strict=True)}
        terms = {name: self.weights[name] * loss for name, loss in losses.items()}
        if (penalty := self.model.penalty()) is not None:
            losses["penalty"] = penalty / processes()  # each has all of it
            terms["penalty"] = share * self.penalty_weight * losses["penalty"]
        return terms, {name: loss.detach() for name, loss in losses.items()}

    def _parts_of_pixels(self, batch: Batch, names: Sequence[str]) -> Tensor:
        """The part of each task's annotated pixels, of all processes, that this batch has: (K,) float64"""
        counts = [self.model.tasks[name].label.valid(batch.labels[name]).sum() for name in names]
        mine = torch.stack(counts).double()
        return mine / everywhere(mine).clamp(min=1)
