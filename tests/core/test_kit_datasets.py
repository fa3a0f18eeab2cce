"""The kit's contract of data sets: for each property something that breaks it, and only it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F
from torchvision.transforms.v2.functional._utils import _KERNEL_REGISTRY

from mt_core.augment import kernels, register_label
from mt_core.augment.kernels import horizontal_flip, rotate, rotate_normals
from mt_core.dataset import Dataset, Sample, Samples
from mt_core.labels import ClassMap, DepthMap, Label, NormalMap
from mt_core.task import Task
from mt_core.tasks import Normals, Segmentation
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


class Motionless(Label):
    """A label that nobody told how to move."""

    void, planes, dtype_ = 255, (), torch.int64

    @classmethod
    def valid(cls, values: Tensor) -> Tensor:
        return values != 255


class Filled(Motionless):
    """Corners that a rotation brings in are of class 0."""


class Spoilt(Motionless):
    """A mirror that works in place."""


def rotate_and_fill(label: Label, angle: float, **options: Any) -> Label:
    turned = rotate(label, angle, **options)
    return turned.masked_fill(turned == 255, 0).as_subclass(type(label))


def flip_in_place(label: Label) -> Label:
    label.as_subclass(Tensor).copy_(horizontal_flip(label).as_subclass(Tensor))
    return label.clone().as_subclass(type(label))


register_label(Filled, rotate=rotate_and_fill)
register_label(Spoilt, horizontal_flip=flip_in_place)


def labelled(kind: type[Label]) -> Dataset:
    """The toy data set with classes in another type of label."""

    @dataclass(frozen=True)
    class Classes(Segmentation):
        label = kind

    class Relabelled(ToyDataset):
        def tasks(self) -> Mapping[str, Task]:
            return {**super().tasks(), "semseg": Classes("semseg", 4)}

        def split(self, name: str, tasks: Sequence[Task]) -> Samples:
            return Changed([task.name for task in tasks], partial(_relabelled, kind=kind))

    return Relabelled()


def _relabelled(sample: Sample, index: int, kind: type[Label]) -> Sample:
    classes = {"semseg": sample.labels["semseg"].as_subclass(kind)} if "semseg" in sample.labels else {}
    return replace(sample, labels={**sample.labels, **classes})


class OnlyHere(ToyDataset):
    """Its pictures are others in a process that it was sent to."""

    def split(self, name: str, tasks: Sequence[Task]) -> Samples:
        return _OnlyHere([task.name for task in tasks], os.getpid())


@dataclass
class _OnlyHere(ToySamples):
    process: int

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        return sample if os.getpid() == self.process else replace(sample, image=255 - sample.image)


class Unlikely(ToyDataset):
    """A recipe that nobody can follow."""

    zoom = (0.0, 1.0)


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
PROCESSES, MOVE, VOID = (
    "test_worker_processes_read_the_same",
    "test_labels_move_with_their_picture",
    "test_what_is_not_annotated_never_becomes_a_label",
)
LEAVE, RECIPE = "test_augmentation_leaves_the_sample_as_it_was", "test_its_recipe_gives_samples_of_its_size"
WORKERS, IDS = "test_samples_travel_to_workers", "test_ids_are_unique_file_names"
BROKEN_DATASETS: dict[str, tuple[Dataset, set[str]]] = {
    "a label of another size": (dataset(_smaller_label), {PICTURES, RECIPE}),
    "a class out of range": (dataset(_impossible_label), {PICTURES, RECIPE}),
    "a picture of floats": (dataset(_picture_of_floats), {PICTURES, RECIPE}),
    "a label without its type": (
        dataset(_plain_label),
        {PICTURES, "test_samples_make_a_batch", MOVE, VOID, LEAVE, RECIPE},
    ),
    "labels that change": (dataset(_another_label_each_time), {SAME, PROCESSES}),
    "pictures that change": (dataset(_another_picture_each_time), {SAME, WORKERS, PROCESSES}),
    "samples that cannot be pickled": (dataset(lambda sample, index: sample), {WORKERS}),
    "other pictures in a worker": (OnlyHere(), {PROCESSES}),
    "a label that cannot move": (labelled(Motionless), {MOVE, VOID, LEAVE, RECIPE}),
    "a void that becomes a class": (labelled(Filled), {VOID}),
    "a move in place": (labelled(Spoilt), {LEAVE}),
    "a recipe that cannot be": (Unlikely(), {RECIPE}),
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


# --- mutations of the kernels themselves, seen on the toy data set and on one with normals


class Facing(ToyDataset):
    """Normals that face many ways, void here and there."""

    def tasks(self) -> Mapping[str, Task]:
        return {"normals": Normals("normals"), **super().tasks()}

    def split(self, name: str, tasks: Sequence[Task]) -> Samples:
        return Changed([task.name for task in tasks], _with_normals)


def _with_normals(sample: Sample, index: int) -> Sample:
    generator = torch.Generator().manual_seed(index)
    vectors = torch.nn.functional.normalize(torch.randn(3, 16, 24, generator=generator), dim=0)
    vectors[:, torch.rand(16, 24, generator=generator) < 0.2] = 0
    return replace(sample, labels={**sample.labels, "normals": NormalMap(vectors)})


KERNELS: dict[str, tuple[str, type[Label], Callable[..., Any], set[str]]] = {
    "a mirror that leaves normals as they are": ("horizontal_flip", NormalMap, horizontal_flip, {MOVE}),
    "a mirror that leaves classes where they are": ("horizontal_flip", ClassMap, lambda x: x.clone(), {MOVE, VOID}),
    "a rotation that leaves normals as they are": ("rotate", NormalMap, rotate, {MOVE}),
    "a rotation of normals the other way": (
        "rotate",
        NormalMap,
        lambda x, angle, **_: rotate_normals(rotate(x, 2 * angle), -angle),
        {MOVE, VOID},
    ),
    "a zoom that leaves depth as it is": ("resized_crop", DepthMap, kernels.resized_crop, {MOVE}),
    "a zoom that blends classes": (
        "resized_crop",
        ClassMap,
        lambda x, *window, **_: _blended(x, *window),
        {MOVE, VOID},
    ),
}


def _blended(label: Label, top: int, left: int, height: int, width: int, size: Sequence[int]) -> Label:
    moved = kernels.resized_crop(label, top, left, height, width, size).as_subclass(Tensor)
    return ((moved + moved.roll(1, -1)) // 2).as_subclass(type(label))


@pytest.mark.parametrize("name", KERNELS)
def test_a_broken_kernel_is_seen_on_a_data_set_that_uses_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    operation, label, kernel, expected = KERNELS[name]
    registered = _KERNEL_REGISTRY[getattr(F, operation)]
    monkeypatch.setitem(registered, label, kernel)
    assert dataset_failures(Facing()) & {MOVE, VOID} == expected


def test_a_data_set_with_normals_passes() -> None:
    assert dataset_failures(Facing()) == set()
