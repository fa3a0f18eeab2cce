"""Predictions of several runs for the same pictures, each with a map of its errors."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mt_core.artefact import MANIFEST, find, load_artefact
from mt_core.augment import evaluation_transform, seeded
from mt_core.build import Built
from mt_core.dataset import Batch, Dataset, Sample, choose, collate
from mt_core.errors import MTError
from mt_core.labels import BinaryMap, ClassMap, DepthMap, NormalMap
from mt_core.task import Task

from ..job import chosen, device_of
from ..panels import to_image
from ..runs import ARTEFACTS, read_config
from .finished import Finished, clean
from .rows import Row
from .tables import Table

log = logging.getLogger(__name__)

VOID = (150, 165, 190)  # of an error map: not annotated
RAMP = ((247, 247, 247), (253, 200, 160), (225, 87, 60), (103, 0, 31))  # of an error map: none to large
STEEPEST = 60.0  # degrees, the end of the ramp of normals
TAIL = 0.98  # depth: the ramp ends where so many of all errors are smaller


@dataclass(frozen=True)
class Prediction:
    """What one row predicts for one picture, and how far off it is."""

    name: str
    colours: Image.Image
    errors: Image.Image | None
    caption: str


@dataclass(frozen=True)
class Strip:
    """One picture and one task: the label, and every row's prediction beside each other.

    Attributes:
        exact: whether colours are classes, which must not be blended.
        scale: what the ends of the error map's ramp mean.
    """

    picture: str
    task: str
    image: Image.Image
    label: Image.Image
    exact: bool
    scale: str
    predictions: list[Prediction]


@dataclass
class Gallery:
    """The strips of a table, and what could not be shown, in words."""

    strips: list[Strip] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Seen:
    """What a row predicts for all pictures, by task, on the CPU."""

    name: str
    values: dict[str, Tensor]
    tasks: dict[str, Task]


def gallery(table: Table, pictures: int, weights: str) -> Gallery:
    """Let a run of each measured row, that of its first seed, predict the same validation pictures.

    What cannot be loaded (the data are elsewhere, an artefact is gone) is said in the notes, and left out.

    Args:
        pictures: how many, evenly spread over the split.
        weights: `best` or `final`, which artefact.
    """
    found = Gallery()
    rows = [row for row in table.measured if row.runs]
    batch = _batch(rows, table, pictures, found.notes) if rows and pictures else None
    if batch is None:
        return found
    seen = [x for row in rows if (x := _predict(row, batch, weights, found.notes)) is not None]
    for i, name in enumerate(batch.ids):
        for task in table.tasks:
            having = [x for x in seen if task in x.values]
            if having and bool(batch.present[task][i]):
                found.strips.append(_strip(clean(name), i, task, batch, having))
    return found


def _batch(rows: Sequence[Row], table: Table, pictures: int, notes: list[str]) -> Batch | None:
    """Some validation pictures with their labels, from where one of the runs had them."""
    reasons: dict[str, None] = {}
    for run in (run for row in rows for run in row.runs if run.config and run.image_size):
        try:
            return _read(run, table, pictures)
        except MTError as error:
            reasons[clean(str(error), 300)] = None
    why = next(iter(reasons), "no run has a configuration that names its data set")
    notes.append(f"No pictures: the data set cannot be read here ({why}).")
    return None


def _read(run: Finished, table: Table, pictures: int) -> Batch:
    dataset: Dataset = chosen("datasets", read_config(str(run.folder))["dataset"])
    tasks = choose(dataset.tasks(), [f"{name}:{channels}" for name, channels in table.tasks.items()])
    samples = dataset.split("val", tasks)
    size = (run.image_size[0], run.image_size[-1])
    transform = evaluation_transform(size)
    count = min(pictures, len(samples))
    places = [len(samples) * i // count for i in range(count)]
    found: list[Sample] = [transform(samples[place], seeded(0)) for place in places]
    return collate(found, tasks)


def _predict(row: Row, batch: Batch, weights: str, notes: list[str]) -> _Seen | None:
    device, size = device_of("auto"), tuple(batch.images.shape[-2:])
    seen = _Seen(row.name, {}, {})
    log.info("pictures of %s", row.name)
    for run in row.members[0].runs:
        try:
            built = load_artefact(_artefact(run.folder, weights), device)
        except MTError as error:
            notes.append(f"No predictions of {row.name}: {clean(str(error), 300)}")
            continue
        if tuple(built.spec.image_size) != size:
            notes.append(f"No predictions of {row.name}: its artefact takes pictures of another size.")
            continue
        for name, values in _values(built, batch, device).items():
            if name in batch.labels:
                seen.values[name], seen.tasks[name] = values, built.model.tasks[name]
    return seen if seen.values else None


def _values(built: Built, batch: Batch, device: torch.device) -> dict[str, Tensor]:
    """One picture at a time: a comparison needs no more memory than a prediction."""
    with torch.inference_mode():
        found = [built.model(image[None].to(device)) for image in batch.images]
        return {
            name: torch.cat([built.model.tasks[name].predict(logits[name].float()).cpu() for logits in found])
            for name in found[0]
        }


def _artefact(folder: Path, weights: str) -> Path:
    """The best, or the last, of a run."""
    lasts = [path.parent for path in folder.glob(f"{ARTEFACTS}/last-*/{MANIFEST}")]
    if weights == "final" and lasts:
        return max(lasts, key=lambda path: (len(path.name), path.name))
    return find(folder)


def _strip(picture: str, i: int, task: str, batch: Batch, seen: Sequence[_Seen]) -> Strip:
    kind, label = seen[0].tasks[task], batch.labels[task][i]
    maps = [_errors(kind, x.values[task][i], label) for x in seen]
    valid = kind.label.valid(label)
    end, scale = _scale(kind, maps, valid)
    predictions = [
        Prediction(
            x.name,
            to_image(kind.colours(x.values[task][i])),
            None if errors is None else paint(errors / end, valid),
            _caption(kind, errors, valid),
        )
        for x, errors in zip(seen, maps, strict=True)
    ]
    image = to_image((batch.images[i] * 255).round().byte())
    exact = issubclass(kind.label, ClassMap)
    return Strip(picture, task, image, to_image(kind.colours(label)), exact, scale, predictions)


def _errors(task: Task, prediction: Tensor, label: Tensor) -> Tensor | None:
    """How far off every pixel is, (H, W): 1 for a wrong class, the difference, or the angle in degrees."""
    if issubclass(task.label, ClassMap):
        return (prediction != label).float()
    if issubclass(task.label, NormalMap):
        p, t = prediction.double(), label.double()
        cosine = (p * t).sum(0) / (p.norm(dim=0) * t.norm(dim=0)).clamp(min=1e-30)
        return torch.rad2deg(cosine.clamp(-1, 1).acos()).float()
    if issubclass(task.label, (DepthMap, BinaryMap)):
        return (prediction - label)[0].abs()
    return None


def _scale(task: Task, maps: Iterable[Tensor | None], valid: Tensor) -> tuple[float, str]:
    """The error at which the ramp ends, the same for all rows, and what to say of it."""
    if issubclass(task.label, ClassMap):
        return 1.0, "right | wrong"
    if issubclass(task.label, NormalMap):
        return STEEPEST, f"0\u00b0 | {STEEPEST:g}\u00b0 and more"
    if issubclass(task.label, BinaryMap):
        return 1.0, "0 | 1"
    found = [errors[valid] for errors in maps if errors is not None]
    values = torch.cat(found) if found else torch.zeros(0)
    end = float(np.quantile(values.numpy(), TAIL)) if values.numel() else 1.0
    end = end if end > 0 else 1.0
    return end, f"0 | {end:.3g} and more, in the label's unit"


def _caption(task: Task, errors: Tensor | None, valid: Tensor) -> str:
    if errors is None or not bool(valid.any()):
        return ""
    mean = float(errors[valid].mean())
    if issubclass(task.label, ClassMap):
        return f"{100 * mean:.1f} % wrong"
    return f"mean {mean:.1f}\u00b0" if issubclass(task.label, NormalMap) else f"mean error {mean:.3g}"


def paint(share: Tensor, valid: Tensor) -> Image.Image:
    """A map of errors: (H, W) from 0, none, to 1, large; grey-blue where nothing is annotated."""
    ramp = np.array(RAMP, float)
    x = share.clamp(0, 1).nan_to_num(1.0).numpy() * (len(ramp) - 1)
    colours = np.stack([np.interp(x, np.arange(len(ramp)), ramp[:, c]) for c in range(3)], -1)
    colours[~valid.numpy()] = VOID
    return Image.fromarray(colours.round().astype(np.uint8))
