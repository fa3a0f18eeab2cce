"""What every data set must do."""

from __future__ import annotations

import pickle
from copy import deepcopy
from functools import partial
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..augment import seeded, training_transform
from ..dataset import SPLITS, Dataset, Sample, Samples, choose, collate
from ..errors import ConfigError
from ..labels import Label
from ..task import Task
from .moves import expected, is_known, misplaced, moves

SEVERAL = 3  # samples of a split are looked at


class DatasetConformance:
    """The contract of a data set. Set `entry` to a data set whose files are there, or override `dataset`."""

    entry: ClassVar[Dataset]

    @pytest.fixture
    def dataset(self) -> Dataset:
        return self.entry

    @pytest.fixture(params=SPLITS)
    def split(self, request: pytest.FixtureRequest, dataset: Dataset) -> Samples:
        return dataset.split(request.param, self.tasks(dataset))

    def tasks(self, dataset: Dataset) -> tuple[Task, ...]:
        """The tasks to read; override where the files have only some."""
        return choose(dataset.tasks(), None)

    def test_names_of_tasks_are_their_keys(self, dataset: Dataset) -> None:
        assert all(name == task.name for name, task in dataset.tasks().items())

    def test_an_unknown_task_is_refused(self, dataset: Dataset) -> None:
        with pytest.raises(ConfigError, match="unknown task 'astrology'"):
            choose(dataset.tasks(), ["astrology"])

    def test_samples_are_pictures_with_labels_of_their_size(self, dataset: Dataset, split: Samples) -> None:
        assert len(split) > 0
        for sample in _several(split):
            _check(sample, self.tasks(dataset))

    def test_samples_are_the_same_each_time(self, split: Samples) -> None:
        first, again = split[0], split[0]
        assert first.id == again.id
        assert torch.equal(first.image, again.image)
        assert all(torch.equal(label, again.labels[name]) for name, label in first.labels.items())

    def test_samples_travel_to_workers(self, split: Samples) -> None:
        again = pickle.loads(pickle.dumps(split))  # noqa: S301 - as a DataLoader does with its workers
        assert torch.equal(again[0].image, split[0].image)

    def test_worker_processes_read_the_same(self, dataset: Dataset, split: Samples) -> None:
        together = partial(collate, tasks=self.tasks(dataset))
        last = len(split) - 1
        loader: Any = DataLoader(split, 1, sampler=[0, last], num_workers=1, collate_fn=together)  # type: ignore[arg-type]
        for index, there in zip((0, last), loader, strict=True):
            here = together([split[index]])
            assert torch.equal(here.images, there.images), f"{here.ids[0]}: another picture"
            assert all(torch.equal(label, there.labels[name]) for name, label in here.labels.items()), here.ids[0]

    def test_labels_move_with_their_picture(self, split: Samples) -> None:
        for sample in _several(split):
            height, width = sample.image.shape[-2:]
            for name, move in moves(height, width).items():
                off = misplaced(move, height, width)
                assert off <= 1.5, f"{name}: labels are {off:.1f} pixels from where their picture is"
                for task, label in sample.labels.items():
                    moved, what = move.labels(label), f"{name} of {task} of {sample.id}"
                    assert type(moved) is type(label), f"{what}: became a {type(moved).__name__}"
                    assert moved.dtype == label.dtype, what
                    if is_known(label):
                        close = torch.isclose(moved.as_subclass(Tensor), expected(move, label), rtol=1e-4, atol=1e-5)
                        assert bool(close.all()), f"{what}: {int((~close).sum())} values are not where they should be"

    def test_what_is_not_annotated_never_becomes_a_label(self, split: Samples) -> None:
        for sample in _several(split):
            for name, move in moves(*sample.image.shape[-2:]).items():
                for task, label in sample.labels.items():
                    kind = type(label)
                    valid = kind.valid(move.labels(label).as_subclass(Tensor))
                    assert torch.equal(valid, kind.valid(expected(move, label))), f"{name} of {task} of {sample.id}"

    def test_augmentation_leaves_the_sample_as_it_was(self, dataset: Dataset, split: Samples) -> None:
        sample = split[0]
        before = deepcopy(sample)
        training_transform(dataset.image_size, flip=False, rotation=20, zoom=(0.7, 1.4), jitter=0.4)(sample, seeded(0))
        for move in moves(*sample.image.shape[-2:]).values():
            for label in sample.labels.values():
                move.labels(label)
        assert torch.equal(sample.image, before.image)
        assert all(torch.equal(label, before.labels[name]) for name, label in sample.labels.items())

    def test_its_recipe_gives_samples_of_its_size(self, dataset: Dataset, split: Samples) -> None:
        recipe = training_transform(dataset.image_size, dataset.flip, dataset.rotation, dataset.zoom)
        for index, sample in enumerate(_several(split)):
            augmented = recipe(sample, seeded(0, index))
            assert tuple(augmented.image.shape) == (3, *dataset.image_size), sample.id
            assert augmented.labels.keys() == sample.labels.keys(), sample.id
            _check(augmented, self.tasks(dataset))

    def test_ids_are_unique_file_names(self, split: Samples) -> None:
        ids = [split[i].id for i in range(min(len(split), SEVERAL))]
        assert len(set(ids)) == len(ids)
        assert all("/" not in name and name not in ("", ".", "..") for name in ids)

    def test_only_the_tasks_asked_for_are_read(self, dataset: Dataset) -> None:
        first = self.tasks(dataset)[:1]
        assert set(dataset.split("train", first)[0].labels) <= {first[0].name}

    def test_samples_make_a_batch(self, dataset: Dataset, split: Samples) -> None:
        batch = collate([split[0], split[0]], self.tasks(dataset))
        assert batch.images.shape[0] == 2
        assert 0 <= batch.images.min() <= batch.images.max() <= 1
        for name, present in batch.present.items():
            assert isinstance(split[0].labels.get(name), Label) == bool(present[0])


def _several(split: Samples) -> list[Sample]:
    return [split[i] for i in range(min(len(split), SEVERAL))]


def _check(sample: Sample, tasks: tuple[Task, ...]) -> None:
    """A picture of bytes, and labels of their types, of its size and with possible values."""
    assert sample.image.dtype is torch.uint8, sample.id
    assert sample.image.shape[0] == 3, sample.id
    for task in tasks:
        if (label := sample.labels.get(task.name)) is not None:
            empty = task.label.empty(*sample.image.shape[-2:])
            assert type(label) is task.label, f"{task.name} of {sample.id} is a {type(label).__name__}"
            assert (label.shape, label.dtype) == (empty.shape, empty.dtype), f"{task.name} of {sample.id}"
            task.check_values(label.as_subclass(torch.Tensor), sample.id)
