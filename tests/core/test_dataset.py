"""Samples, batches, and the choice of tasks."""

from __future__ import annotations

import pytest
import torch
from torchvision.tv_tensors import Image

from mt_core.dataset import Dataset, Sample, choose, collate
from mt_core.errors import ConfigError
from mt_core.labels import IGNORE, ClassMap
from mt_core.tasks import Depth, Normals, Segmentation

from .toys import ToyDataset

SEMSEG, DEPTH = Segmentation("semseg", 4, ("a", "b", "c", "d")), Depth("depth")
TASKS = {"semseg": SEMSEG, "depth": DEPTH}


def test_none_chosen_means_all_and_the_order_is_the_users() -> None:
    assert choose(TASKS, None) == (SEMSEG, DEPTH)
    assert choose(TASKS, ["depth", "semseg"]) == (DEPTH, SEMSEG)


def test_a_number_sets_the_channels_and_drops_names_that_no_longer_fit() -> None:
    (chosen,) = choose(TASKS, ["semseg:7"])
    assert chosen == Segmentation("semseg", 7)
    assert choose(TASKS, ["semseg:4"]) == (SEMSEG,)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ([], "tasks is empty; choose at least one of semseg, depth"),
        (["flow"], "unknown task 'flow'; this data set has semseg, depth"),
        (["depth", "depth"], r"task 'depth' stands twice in tasks=\['depth', 'depth'\]; name each once"),
        (["semseg", "semseg:7"], "task 'semseg' stands twice in tasks"),
        (["semseg:many"], "task 'semseg:many': expected NAME or NAME:CHANNELS, for example semseg:7"),
        (["semseg:-1"], "task 'semseg:-1': expected NAME or NAME:CHANNELS"),
        (["semseg:0"], "task semseg: 0 channels; at least 1 is needed"),
        (["depth:2"], "task depth: 2 channels, but depth has 1; leave the number away"),
    ],
)
def test_a_choice_that_cannot_be_is_refused(wanted: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose(TASKS, wanted)


def test_a_batch_holds_pixels_from_0_to_1_and_labels_of_every_task() -> None:
    image = Image(torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1).expand(3, 2, 2))
    labelled = Sample("one", image, {"semseg": ClassMap(torch.ones(2, 2))})
    batch = collate([labelled, Sample("two", image)], (SEMSEG, DEPTH, Normals("normals")))
    assert batch.ids == ["one", "two"]
    assert type(batch.images) is torch.Tensor
    assert batch.images[0, :, 0, 0].tolist() == pytest.approx([0, 0.2, 1])
    assert {name: tuple(x.shape) for name, x in batch.labels.items()} == {
        "semseg": (2, 2, 2),
        "depth": (2, 1, 2, 2),
        "normals": (2, 3, 2, 2),
    }
    assert (batch.labels["semseg"][0] == 1).all()
    assert (batch.labels["semseg"][1] == IGNORE).all(), "an annotation that is missing is void"
    assert not batch.labels["depth"].any()


def test_a_batch_says_which_pictures_have_an_annotation() -> None:
    samples = ToyDataset().split("train", (SEMSEG, DEPTH))
    batch = collate([samples[0], samples[1]], (SEMSEG, DEPTH))
    assert batch.present["semseg"].tolist() == [True, True]
    assert batch.present["depth"].tolist() == [True, False]


def test_a_batch_moves_as_a_whole() -> None:
    samples = ToyDataset().split("train", (SEMSEG, DEPTH))
    moved = collate([samples[0]], (SEMSEG, DEPTH)).to(torch.device("meta"))
    assert all(x.is_meta for x in (moved.images, *moved.labels.values(), *moved.present.values()))


def test_a_data_set_is_augmented_only_as_it_says() -> None:
    assert (Dataset.zoom, Dataset.rotation, Dataset.flip) == ((1.0, 1.0), 0.0, True)
