"""Cityscapes: its tasks, which labels are read, and what is said of folders that cannot be used."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mt_core.augment import seeded, training_transform
from mt_core.dataset import Samples, choose
from mt_core.errors import ConfigError, DataError
from mt_core.labels import ClassMap
from mt_datasets.cityscapes import CLASSES, Cityscapes, DepthForm
from mt_datasets.inverse_depth import InverseDepthMap

from .layouts import write_mtan, write_npy

SIZE = (16, 32)
BOTH = {"label_7": 7, "label_19": 19}


def opened(root: Path, *names: str, split: str = "train", classes: int = 7) -> Samples:
    dataset = Cityscapes(root=str(root), classes=classes)
    return dataset.split(split, choose(dataset.tasks(), names or None))


def written(root: Path, **labels: int) -> Path:
    return write_mtan(root, SIZE, labels=labels or BOTH, normals=False)


@pytest.mark.parametrize(("classes", "last"), [(7, "vehicle"), (19, "bicycle")])
def test_it_has_two_tasks_with_the_channels_of_the_papers_and_needs_no_files_to_say_so(classes: int, last: str) -> None:
    tasks = Cityscapes(classes=classes).tasks()
    assert {name: task.channels for name, task in tasks.items()} == {"semseg": classes, "depth": 1}
    assert len(tasks["semseg"].classes) == classes
    assert tasks["semseg"].classes[-1] == last


def test_seven_classes_are_the_usual_ones_and_other_numbers_are_refused() -> None:
    assert Cityscapes().classes == 7
    assert CLASSES[19][8:11] == ("vegetation", "terrain", "sky")
    with pytest.raises(ConfigError, match=r"dataset.classes=8: Cityscapes has labels of 7 or 19 classes"):
        Cityscapes(classes=8)


def test_every_annotation_is_read_in_its_type_and_the_size_of_the_picture(tmp_path: Path) -> None:
    sample = opened(written(tmp_path))[0]
    assert sample.image.shape == (3, *SIZE)
    assert {name: type(label) for name, label in sample.labels.items()} == {
        "semseg": ClassMap,
        "depth": InverseDepthMap,
    }
    for label in sample.labels.values():
        assert label.shape == (*label.planes, *SIZE)
        assert label.dtype == label.dtype_


@pytest.mark.parametrize("classes", [7, 19])
def test_labels_come_from_the_folder_with_the_number_of_classes(tmp_path: Path, classes: int) -> None:
    stored = np.load(written(tmp_path, label=3, **BOTH) / f"train/label_{classes}/0.npy")
    semseg = opened(tmp_path, "semseg", classes=classes)[0].labels["semseg"].numpy()
    assert (semseg == np.where(stored == -1, 255, stored)).all()


@pytest.mark.parametrize("classes", [7, 19])
def test_a_copy_with_one_kind_of_labels_is_read_too(tmp_path: Path, classes: int) -> None:
    stored = np.load(written(tmp_path, label=classes) / "train/label/0.npy")
    semseg = opened(tmp_path, "semseg", classes=classes)[0].labels["semseg"].numpy()
    assert (semseg == np.where(stored == -1, 255, stored)).all()


def test_labels_of_other_classes_than_chosen_are_not_taken_for_them(tmp_path: Path) -> None:
    written(tmp_path, label_19=19)
    with pytest.raises(DataError, match=r"no folder label_7 or label, which task semseg needs; .*tasks=\[depth\]"):
        opened(tmp_path)
    write_npy(written(tmp_path, label=19) / "train/label/0.npy", np.full(SIZE, 18))
    with pytest.raises(DataError, match=r"0.npy \(read as 7 classes; dataset.classes can be 7 or 19\): .*found 18 "):
        opened(tmp_path)[0]


def test_inverse_depth_is_passed_through_and_0_is_missing(tmp_path: Path) -> None:
    values = np.zeros((*SIZE, 1), np.float32)
    values[1:] = 32257 / 65535
    write_npy(written(tmp_path) / "train/depth/0.npy", values)
    depth = opened(tmp_path, "depth")[0].labels["depth"]
    assert (depth.numpy() == values.transpose(2, 0, 1)).all()
    assert not InverseDepthMap.valid(depth)[0].any()
    assert InverseDepthMap.valid(depth)[1:].all()


def test_its_recipe_keeps_every_value_of_inverse_depth(tmp_path: Path) -> None:
    sample = opened(written(tmp_path))[0]
    augment = training_transform(SIZE, Cityscapes.flip, Cityscapes.rotation, Cityscapes.zoom)
    for seed in range(4):
        moved = augment(sample, seeded(seed)).labels["depth"]
        assert torch.equal(moved.flatten().sort().values, sample.labels["depth"].flatten().sort().values)


def test_the_two_splits_are_two_folders(tmp_path: Path) -> None:
    written(tmp_path)
    assert (len(opened(tmp_path)), len(opened(tmp_path, split="val"))) == (2, 1)
    shutil.rmtree(tmp_path / "val")
    with pytest.raises(DataError, match=r"val.image: no such file; expected a folder of arrays 0.npy"):
        opened(tmp_path, split="val")


@pytest.mark.parametrize(("root", "found"), [("", "is not set"), ("nowhere/at/all", "nowhere/at/all is no folder")])
def test_without_a_folder_it_says_which_option_to_set_and_what_is_expected_there(root: str, found: str) -> None:
    expected = (
        r"Cityscapes: leftImg8bit/{train,val}/\*_leftImg8bit.png, .* Or in the layout MTAN: {train,val}/image/\*.npy, "
        r"{train,val}/label_7/\*.npy, {train,val}/label/\*.npy, {train,val}/depth/"
    )
    with pytest.raises(DataError, match=f"{found}; set dataset.root=DIR to a folder in the layout {expected}"):
        Cityscapes(root=root).split("train", [])


@pytest.mark.parametrize(
    ("folders", "found"),
    [
        (["disparity"], "holds disparity; set"),
        (["pictures"], "holds pictures; set"),
        ([], "holds nothing; set"),
    ],
)
def test_a_folder_in_another_layout_is_refused_with_what_it_holds(
    tmp_path: Path, folders: list[str], found: str
) -> None:
    for folder in folders:
        (tmp_path / folder).mkdir()
    with pytest.raises(DataError) as caught:
        opened(tmp_path)
    assert f"{tmp_path} {found} dataset.root=DIR to a folder in the layout Cityscapes" in str(caught.value)


def test_its_copies_have_no_metres(tmp_path: Path) -> None:
    dataset = Cityscapes(root=str(written(tmp_path)), depth=DepthForm.metres)
    with pytest.raises(
        ConfigError, match=r"depth=metres, but .* has MTAN's copies, of inverse depth without its camer"
    ):
        dataset.split("train", choose(dataset.tasks(), None))
    assert list(dataset.split("train", choose(dataset.tasks(), ["semseg"]))[0].labels) == ["semseg"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


Damage = Callable[[Path], object]
DAMAGE: dict[str, tuple[str, Damage, str]] = {
    "truncated picture": ("image", cut, "cannot be read as a NumPy array"),
    "picture of objects": ("image", lambda path: write_npy(path, np.full((*SIZE, 3), None)), "Object arrays cannot be"),
    "grey picture": ("image", lambda path: write_npy(path, np.zeros(SIZE)), "float64 of shape (16, 32); expected"),
    "truncated labels": ("label_7", cut, "cannot be read as a NumPy array"),
    "class out of range": ("label_7", lambda path: write_npy(path, np.full(SIZE, 7)), "task semseg: found 7 "),
    "void labels": ("label_7", lambda path: write_npy(path, np.full(SIZE, -1.0)), "no pixel is annotated"),
    "integer depth": ("depth", lambda path: write_npy(path, np.ones(SIZE, np.uint16)), "depth as uint16; expected"),
    "NaN in depth": (
        "depth",
        lambda path: write_npy(path, np.full(SIZE, np.nan)),
        "(inverse depth): task depth: found nan",
    ),
    "negative depth": ("depth", lambda path: write_npy(path, np.full(SIZE, -1.0)), "found -1 "),
    "void depth": ("depth", lambda path: write_npy(path, np.zeros(SIZE)), "no pixel is annotated"),
    "depth of another size": (
        "depth",
        lambda path: write_npy(path, np.ones((32, 64))),
        "64 x 32 pixels (width x height), but the picture 0 has 32 x 16",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_refused_when_it_is_read(tmp_path: Path, damage: str) -> None:
    folder, spoil, message = DAMAGE[damage]
    spoil(written(tmp_path) / f"train/{folder}/0.npy")
    samples = opened(tmp_path)
    assert samples[1].id == "1"
    with pytest.raises(DataError) as caught:
        samples[0]
    assert f"train/{folder}/0.npy" in str(caught.value)
    assert message in str(caught.value)
