"""Rooms as a data set: unlimited, seeded, and the same contract as any other."""

from __future__ import annotations

import pytest
import torch

from mt_core.dataset import choose
from mt_core.errors import ConfigError
from mt_core.testing import DatasetConformance
from mt_datasets.rooms.dataset import Rooms


class TestContract(DatasetConformance):
    entry = Rooms(size=(32, 40), val=8)


def test_splits_and_seeds_share_no_picture() -> None:
    tasks = choose(Rooms().tasks(), ["semseg"])
    firsts = [
        Rooms(size=(16, 20), seed=seed).split(name, tasks)[0].image for seed in (0, 1) for name in ("train", "val")
    ]
    for i, one in enumerate(firsts):
        assert not any(torch.equal(one, other) for other in firsts[:i])


def test_every_pixel_is_annotated_and_the_units_are_right() -> None:
    rooms = Rooms(size=(24, 32))
    tasks = choose(rooms.tasks(), None)
    for i in range(4):
        sample = rooms.split("train", tasks)[i]
        for task in tasks:
            label = sample.labels[task.name].as_subclass(torch.Tensor)
            task.check(label, sample.id)
            assert bool(task.label.valid(label).all()), f"{task.name} of {sample.id} has void pixels"
        assert 0.1 < sample.labels["depth"].min() < sample.labels["depth"].max() < 30


def test_the_length_of_a_split_is_an_option_and_costs_nothing() -> None:
    assert len(Rooms(train=10**9).split("train", [])) == 10**9
    with pytest.raises(IndexError):
        Rooms(val=3).split("val", [])[3]


@pytest.mark.parametrize("options", [{"size": (8, 64)}, {"train": 0}, {"seed": -1}])
def test_options_that_cannot_be_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="16 pixels a side, one picture per split and a seed from 0"):
        Rooms(**options)


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ConfigError, match="rooms has no split 'test'"):
        Rooms().split("test", [])
