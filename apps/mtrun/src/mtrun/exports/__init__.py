"""A trained model in other forms. Each format is a function that fills a new folder and says what it found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mt_core.build import Built
from mt_core.errors import CheckpointError

TOLERANCE = 1e-4  # largest difference after writing, relative to the largest value where that is above 1
BATCHES = (1, 2, 3)  # sizes that are compared; it is traced with the second


@dataclass(frozen=True)
class Request:
    """What is to be exported.

    Attributes:
        artefact: where the model was read from.
        built: the model, on the CPU, in evaluation mode, with the wanted tasks selected.
        layout: of merged encoders.
        verify: compare what was written with the model.
    """

    artefact: Path
    built: Built
    layout: str
    verify: bool

    @property
    def tasks(self) -> tuple[str, ...]:
        """The wanted tasks."""
        return self.built.model.selected

    def images(self, count: int) -> Tensor:
        """Noise in [0, 1], the same every time: (count, 3, H, W)"""
        generator = torch.Generator().manual_seed(count)
        return torch.rand(count, 3, *self.built.spec.image_size, generator=generator)


Format = Callable[[Request, Path], dict[str, Any]]


def compare(
    request: Request, run: Callable[[Tensor], Mapping[str, Tensor]], what: str
) -> Iterator[tuple[str, dict[str, float]]]:
    """Each task with the largest difference between its logits and those that `run` gives, over several batches.

    Raises:
        CheckpointError: if one is too large.
    """
    pairs: dict[str, list[tuple[Tensor, Tensor]]] = {task: [] for task in request.tasks}
    for count in BATCHES:
        images = request.images(count)
        with torch.no_grad():
            expected, found = request.built.model(images), run(images)
        for task, logits in expected.items():
            pairs[task].append((found[task], logits))
    for task, compared in pairs.items():
        yield task, refuse_large(difference(*zip(*compared, strict=True)), f"{what}, task {task}")


def difference(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> dict[str, float]:
    """The largest difference over pairs of tensors: as it is, and over the largest value where that is above 1."""
    largest = max(float(x.abs().max()) for x in expected)
    pairs = zip(found, expected, strict=True)
    absolute = max(float((x - y).abs().max()) if x.shape == y.shape else float("inf") for x, y in pairs)
    return {"absolute": absolute, "relative": absolute / max(1.0, largest)}


def refuse_large(found: dict[str, float], what: str) -> dict[str, float]:
    """The difference, if it is small. Raises CheckpointError otherwise; NaN is not small."""
    if not found["relative"] <= TOLERANCE:
        raise CheckpointError(
            f"{what}: what was exported differs from the model by {found['relative']:.2e}, expected at most "
            f"{TOLERANCE:.0e}; nothing was written (verify=false does not compare)"
        )
    return found
