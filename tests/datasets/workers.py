"""What worker processes read of a data set."""

from __future__ import annotations

import pickle
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader

from mt_core.dataset import Dataset, choose, collate


def assert_read_alike_in_workers(dataset: Dataset, workers: int) -> None:
    """The first two samples, sent to other processes and read there, are those that are read here."""
    tasks = choose(dataset.tasks(), None)
    samples = dataset.split("train", tasks)
    here = collate([samples[0], samples[1]], tasks)
    copy: Any = pickle.loads(pickle.dumps(samples))  # noqa: S301
    (there,) = DataLoader(copy, 2, num_workers=workers, collate_fn=partial(collate, tasks=tasks))
    assert torch.equal(here.images, there.images)
    assert all(torch.equal(label, there.labels[name]) for name, label in here.labels.items())
