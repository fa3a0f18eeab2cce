"""`mtrun data show`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from mt_core.augment import seeded
from mt_core.dataset import SPLITS, Dataset, Sample, choose
from mt_core.errors import ConfigError
from mt_core.files import atomic_path
from mt_core.task import Task

from ..data import Order
from ..data_config import ShowConfig
from ..job import chosen, training
from ..panels import PAPER, WIDTH, scaled, table, to_image
from ..recipe import AugmentOptions
from ..results import Result


def show(config: ShowConfig, plain: Mapping[str, Any]) -> Result:
    """Draw pictures of a split with their labels, and what augmentation makes of them; a PNG."""
    if config.split not in SPLITS:
        raise ConfigError(f"split={config.split}: nothing to show of it; expected {' or '.join(SPLITS)}")
    dataset: Dataset = chosen("datasets", config.dataset)
    tasks = choose(dataset.tasks(), config.tasks)
    transform = training(AugmentOptions(), dataset, config.image_size or dataset.image_size)
    samples = dataset.split(config.split, tasks)
    count = min(config.count, len(samples))
    seed = config.seed or 0
    indices = range(count) if config.seed is None else [Order(len(samples), seed)[i] for i in range(count)]
    columns = ["image", *(task.name for task in tasks)]
    rows, ids = [], []
    for index in indices:
        sample = samples[index]
        row = _cells(sample, tasks)
        if config.augment:
            row += _cells(transform(sample, seeded(seed, index)), tasks)
        rows.append(row)
        ids.append(sample.id)
    if config.augment:
        columns += [f"augmented {column}" for column in columns]
    path = Path(config.output or f"{config.dataset['name']}-{config.split}.png")
    _save(table(columns, rows, ids), path)
    line = f"{len(ids)} of {len(samples)} pictures of split {config.split} are drawn in {path}"
    value = {"output": str(path), "split": config.split, "ids": ids, "tasks": [task.name for task in tasks]}
    return Result(value, lambda console: console.print(line, soft_wrap=True, highlight=False, markup=False))


def _cells(sample: Sample, tasks: Sequence[Task]) -> list[Image.Image]:
    """The picture, and each label in its colours; an empty cell where it has none."""
    picture = scaled(to_image(sample.image.as_subclass(Tensor)))
    empty = Image.new("RGB", (WIDTH, picture.height), PAPER)
    labels = [sample.labels.get(task.name) for task in tasks]
    drawn = [
        empty if label is None else scaled(to_image(task.colours(label.as_subclass(Tensor))))
        for task, label in zip(tasks, labels, strict=True)
    ]
    return [picture, *drawn]


def _save(sheet: Image.Image, path: Path) -> None:
    try:
        with atomic_path(path) as temporary:
            sheet.save(temporary, format="PNG")
    except OSError as error:
        raise ConfigError(f"output={path} cannot be drawn to: {error.strerror or error}; choose another") from error
