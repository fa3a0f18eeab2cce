"""How much the tasks pull a backbone in the same direction (Gangwar et al., section 3.1)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor, nn

from mt_core.dataset import Batch
from mt_core.errors import DataError
from mt_core.model import MultiTaskModel


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        similarity: (T, T) float64, mean cosine of the tasks' gradients; 1 on the diagonal.
        pairs: (T, T) int64, from how many pictures; on the diagonal, how many have the task's label.
        examples: how many pictures were looked at.
    """

    similarity: Tensor
    pairs: Tensor
    examples: int


def measure(model: MultiTaskModel, samples: Iterable[Batch]) -> Measured:
    """Eq. 1 to 3: the mean over examples of the cosine between two tasks' gradients, on the same example.

    Gradients are of each task's loss with respect to all parameters of the encoder, dropout off. Eq. 2 divides both
    by the same |g| + |g'|, which cancels in the cosine: it is left out. A gradient of zeros has similarity 0 to any.

    Of each example only the products of its gradients are kept, in float64, so memory does not grow with the number of
    examples: at most T gradients are alive, those of one example.

    Args:
        model: a plain backbone with fine-tuned decoders; left in evaluation mode with a trainable encoder.
        samples: batches of any size; a task counts where its label is present.

    Raises:
        DataError: if a gradient is not finite, naming sample and task, or two tasks never have labels together.
    """
    model.eval().requires_grad_(False)
    model.encoder.requires_grad_(True)
    tasks, examples = list(model.tasks), 0
    sums = torch.zeros(len(tasks), len(tasks), dtype=torch.float64)
    pairs = torch.zeros(len(tasks), len(tasks), dtype=torch.int64)
    for name, example in _single(samples):
        examples += 1
        found = [i for i, task in enumerate(tasks) if bool(example.present[task])]
        if found:
            here = torch.meshgrid(torch.tensor(found), torch.tensor(found), indexing="ij")
            sums[here] += _cosines(model, example, name, [tasks[i] for i in found])
            pairs[here] += 1
    for i, j in combinations(range(len(tasks)), 2):
        if not pairs[i, j]:
            raise DataError(
                f"none of {examples} samples has labels of both {tasks[i]} and {tasks[j]}, so their similarity cannot "
                f"be measured; look at more samples, or leave one of the tasks away"
            )
    return Measured((sums / pairs.clamp(min=1)).fill_diagonal_(1.0), pairs, examples)


def _single(samples: Iterable[Batch]) -> Iterator[tuple[str, Batch]]:
    """Every example as a batch of its own, with its name."""
    for batch in samples:
        for i, name in enumerate(batch.ids):
            labels = {task: x[i : i + 1] for task, x in batch.labels.items()}
            present = {task: x[i : i + 1] for task, x in batch.present.items()}
            yield name, Batch([name], batch.images[i : i + 1], labels, present)


def _cosines(model: MultiTaskModel, example: Batch, name: str, tasks: list[str]) -> Tensor:
    """The cosines between the gradients of some tasks on one example: (T', T') float64."""
    logits = model(example.images)
    losses = [model.tasks[task].loss(logits[task], example.labels[task]) for task in tasks]
    products = _products(_gradients(losses, list(model.encoder.parameters())))
    norms = products.diagonal().sqrt()
    for task, loss, norm in zip(tasks, losses, norms, strict=True):
        if not bool(torch.isfinite(loss)) or not bool(torch.isfinite(norm)):
            raise DataError(
                f"sample {name}: the gradient of {task}'s loss ({loss.item()}) is not finite; look at the picture and "
                f"its {task} label, or fine-tune the decoders at a smaller rate"
            )
    lengths = norms.outer(norms)
    return torch.where(lengths > 0, products / lengths, 0.0).clamp(-1, 1)


def _gradients(losses: list[Tensor], parameters: list[nn.Parameter]) -> list[tuple[Tensor | None, ...]]:
    """For each loss, its gradient in every parameter (None where it does not depend on one): one forward serves all."""
    return [
        torch.autograd.grad(loss, parameters, retain_graph=i + 1 < len(losses), allow_unused=True)
        for i, loss in enumerate(losses)
    ]


def _products(gradients: list[tuple[Tensor | None, ...]]) -> Tensor:
    """The inner products of gradients over all parameters: (T', T') float64 on the CPU. One parameter at a time, so
    that no second copy of a whole gradient is made."""
    total = torch.zeros(len(gradients), len(gradients), dtype=torch.float64)
    for parts in zip(*gradients, strict=True):
        like = next((part for part in parts if part is not None), None)
        if like is not None:
            rows = [(torch.zeros_like(like) if part is None else part).flatten().double() for part in parts]
            stacked = torch.stack(rows)  # (T', n)
            total += (stacked @ stacked.T).cpu()
    return total
