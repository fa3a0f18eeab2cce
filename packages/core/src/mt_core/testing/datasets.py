"""What every data set must do."""

from __future__ import annotations

import pickle
from typing import ClassVar

import pytest
import torch

from ..dataset import SPLITS, Dataset, Samples, choose, collate
from ..errors import ConfigError
from ..labels import Label
from ..task import Task

SEVERAL = 4  # samples of a split are looked at


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
        for sample in (split[i] for i in range(min(len(split), SEVERAL))):
            assert sample.image.dtype is torch.uint8, sample.id
            assert sample.image.shape[0] == 3, sample.id
            for task in self.tasks(dataset):
                if (label := sample.labels.get(task.name)) is not None:
                    empty = task.label.empty(*sample.image.shape[-2:])
                    assert type(label) is task.label, f"{task.name} of {sample.id} is a {type(label).__name__}"
                    assert (label.shape, label.dtype) == (empty.shape, empty.dtype), f"{task.name} of {sample.id}"
                    task.check_values(label.as_subclass(torch.Tensor), sample.id)

    def test_samples_are_the_same_each_time(self, split: Samples) -> None:
        first, again = split[0], split[0]
        assert first.id == again.id
        assert torch.equal(first.image, again.image)
        assert all(torch.equal(label, again.labels[name]) for name, label in first.labels.items())

    def test_samples_travel_to_workers(self, split: Samples) -> None:
        again = pickle.loads(pickle.dumps(split))  # noqa: S301 - as a DataLoader does with its workers
        assert torch.equal(again[0].image, split[0].image)

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
