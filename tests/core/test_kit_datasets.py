"""The kit's contract of data sets: for each property something that breaks it, and only it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import pytest
import torch
from torch import Tensor

from mt_core.dataset import Dataset, Sample, Samples
from mt_core.labels import ClassMap, DepthMap
from mt_core.task import Task
from mt_core.tasks import Segmentation
from mt_core.testing import DatasetConformance

from .contracts import failures, properties
from .toys import ToyDataset, ToySamples


def dataset(change: Callable[[Sample, int], Sample]) -> Dataset:
    """The toy data set whose samples are changed, given their index."""

    def split(self: ToyDataset, name: str, tasks: Sequence[Task]) -> Samples:
        return Changed([task.name for task in tasks], change)

    return cast(Dataset, type("BrokenDataset", (ToyDataset,), {"split": split})())


@dataclass
class Changed(ToySamples):
    change: Callable[[Sample, int], Sample]

    def __getitem__(self, index: int) -> Sample:
        return self.change(super().__getitem__(index), index)


def _smaller_label(sample: Sample, index: int) -> Sample:
    return replace(sample, labels={**sample.labels, "semseg": ClassMap(torch.zeros(8, 12))}) if index else sample


def _impossible_label(sample: Sample, index: int) -> Sample:
    return replace(sample, labels={**sample.labels, "semseg": ClassMap(torch.full((16, 24), 9))})


def _plain_label(sample: Sample, index: int) -> Sample:
    return replace(sample, labels={name: x.as_subclass(Tensor) for name, x in sample.labels.items()})


def _another_label_each_time(sample: Sample, index: int) -> Sample:
    return replace(sample, labels={**sample.labels, "semseg": ClassMap(torch.randint(4, (16, 24)))})


def _another_picture_each_time(sample: Sample, index: int) -> Sample:
    return replace(sample, image=torch.randint(256, (3, 16, 24), dtype=torch.uint8))


def _a_label_nobody_asked_for(sample: Sample, index: int) -> Sample:
    return replace(sample, labels={**sample.labels, "depth": DepthMap(torch.ones(1, 16, 24))})


def _picture_of_floats(sample: Sample, index: int) -> Sample:
    return replace(sample, image=sample.image.float())


def _folder_in_its_id(sample: Sample, index: int) -> Sample:
    return replace(sample, id=f"folder/{index}")


def _one_id_for_all(sample: Sample, index: int) -> Sample:
    return replace(sample, id="toy")


class NamesAndKeysDiffer(ToyDataset):
    def tasks(self) -> Mapping[str, Task]:
        return {"classes" if name == "semseg" else name: task for name, task in super().tasks().items()}


class KnowsEveryTask(ToyDataset):
    def tasks(self) -> Mapping[str, Task]:
        return _Every(super().tasks())


class _Every(dict[str, Task]):
    def __missing__(self, name: str) -> Task:
        return Segmentation(name, 4)

    def __contains__(self, name: object) -> bool:
        return True


PICTURES, SAME = "test_samples_are_pictures_with_labels_of_their_size", "test_samples_are_the_same_each_time"
WORKERS, IDS = "test_samples_travel_to_workers", "test_ids_are_unique_file_names"
BROKEN_DATASETS: dict[str, tuple[Dataset, set[str]]] = {
    "a label of another size": (dataset(_smaller_label), {PICTURES}),
    "a class out of range": (dataset(_impossible_label), {PICTURES}),
    "a picture of floats": (dataset(_picture_of_floats), {PICTURES}),
    "a label without its type": (dataset(_plain_label), {PICTURES, "test_samples_make_a_batch"}),
    "labels that change": (dataset(_another_label_each_time), {SAME}),
    "pictures that change": (dataset(_another_picture_each_time), {SAME, WORKERS}),
    "samples that cannot be pickled": (dataset(lambda sample, index: sample), {WORKERS}),
    "a task nobody asked for": (dataset(_a_label_nobody_asked_for), {"test_only_the_tasks_asked_for_are_read"}),
    "a folder in an id": (dataset(_folder_in_its_id), {IDS}),
    "one id for all": (dataset(_one_id_for_all), {IDS}),
    "names that are not keys": (NamesAndKeysDiffer(), {"test_names_of_tasks_are_their_keys"}),
    "a task for every name": (KnowsEveryTask(), {"test_an_unknown_task_is_refused"}),
}


def dataset_failures(entry: Dataset) -> set[str]:
    contract = DatasetConformance()
    fixtures = {name: partial(entry.split, name, contract.tasks(entry)) for name in ("train", "val")}
    return set().union(*(failures(contract, {"dataset": lambda: entry, "split": split}) for split in fixtures.values()))


def test_a_sound_data_set_passes() -> None:
    assert dataset_failures(ToyDataset()) == set()


@pytest.mark.parametrize(("entry", "expected"), BROKEN_DATASETS.values(), ids=BROKEN_DATASETS)
def test_a_broken_data_set_fails_what_it_breaks_and_nothing_else(entry: Dataset, expected: set[str]) -> None:
    assert dataset_failures(entry) == expected


def test_every_property_of_a_data_set_has_something_that_breaks_it() -> None:
    assert properties(DatasetConformance) == set().union(*(expected for _, expected in BROKEN_DATASETS.values()))
