"""NYUv2 with 13 classes: both of its layouts, how they are told apart, and what is said of damaged data sets."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import loadmat
from torchvision import tv_tensors

from mt_core.dataset import Samples, choose
from mt_core.errors import ConfigError, DataError
from mt_core.labels import BinaryMap, ClassMap, DepthMap, NormalMap
from mt_core.tasks import HumanParts
from mt_datasets import nyud
from mt_datasets.label_edges import edges_from_classes
from mt_datasets.nyu_classes import CLASSES, forty_to_13
from mt_datasets.nyu_official import CAMERA
from mt_datasets.nyuv2 import COMPUTED, DERIVED, NYUv2
from mt_datasets.pinhole import normals_from_depth

from .layouts import write_mtan, write_npy, write_nyud, write_png

SIZE = (24, 32)


def opened(root: Path, *names: str, split: str = "train", classes: int = 13) -> Samples:
    dataset = NYUv2(root=str(root), classes=classes)
    return dataset.split(split, choose(dataset.tasks(), names or None))


def write_nyud_13(root: Path) -> Path:
    """The layout NYUD_MT with labels of 13 classes beside those of 40, which say something else."""
    write_nyud(root, SIZE)
    for number, path in enumerate(sorted((root / "segmentation").iterdir())):
        write_png(root / "segmentation13" / path.name, np.full(SIZE, [[number], [13]] * 12, np.uint8))
    return root


@pytest.mark.parametrize("classes", [13, 40])
def test_it_has_four_tasks_three_of_them_the_papers_and_needs_no_files_to_say_so(classes: int) -> None:
    tasks = NYUv2(classes=classes).tasks()
    assert list(tasks) == ["semseg", "depth", "normals", "edges"]
    assert [task.channels for task in tasks.values()] == [classes, 1, 3, 1]
    assert NYUv2.usual_tasks == ("semseg", "depth", "normals")
    assert len(tasks["semseg"].classes) == classes


def test_thirteen_classes_are_the_usual_ones() -> None:
    assert NYUv2().classes == 13
    assert CLASSES[13][0] == "bed"
    assert CLASSES[13][12] == "window"


def test_other_numbers_of_classes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"dataset.classes=14: NYUv2 has labels of 13 or 40 classes"):
        NYUv2(classes=14)


def test_every_annotation_of_the_arrays_is_read_in_its_type_and_the_size_of_the_picture(tmp_path: Path) -> None:
    sample = opened(write_mtan(tmp_path, SIZE))[0]
    assert sample.id == "0"
    assert isinstance(sample.image, tv_tensors.Image)
    assert sample.image.dtype == torch.uint8
    assert sample.image.shape == (3, *SIZE)
    assert {name: type(label) for name, label in sample.labels.items()} == {
        "semseg": ClassMap, "depth": DepthMap, "normals": NormalMap, "edges": BinaryMap
    }  # fmt: skip
    for label in sample.labels.values():
        assert label.shape == (*label.planes, *SIZE)
        assert label.dtype == label.dtype_
        assert label.is_contiguous()


def test_arrays_hold_what_was_written(tmp_path: Path) -> None:
    sample = opened(write_mtan(tmp_path, SIZE))[1]
    stored = {name: np.load(tmp_path / f"train/{name}/1.npy") for name in ("image", "label", "depth", "normal")}
    assert np.abs(sample.image.numpy() / 255 - stored["image"].transpose(2, 0, 1)).max() <= 0.5 / 255 + 1e-9
    assert (stored["label"] == -1).any()
    assert (sample.labels["semseg"].numpy() == np.where(stored["label"] == -1, 255, stored["label"])).all()
    assert (sample.labels["depth"].numpy() == stored["depth"].transpose(2, 0, 1)).all()
    assert np.abs(sample.labels["normals"].numpy() - stored["normal"].transpose(2, 0, 1)).max() < 1e-6


def test_normals_that_resizing_shortened_are_unit_vectors_again_or_void(tmp_path: Path) -> None:
    path = write_mtan(tmp_path, SIZE) / "train/normal/0.npy"
    vectors = np.load(path)
    vectors[1] *= 0.9
    vectors[2] *= 0.3
    write_npy(path, vectors)
    normals = opened(tmp_path, "normals")[0].labels["normals"]
    assert torch.allclose(normals[:, 1].norm(dim=0), torch.tensor(1.0))
    assert (normals[:, 2] == 0).all()


def test_pictures_stand_in_the_order_of_their_numbers_and_each_split_has_its_own(tmp_path: Path) -> None:
    write_mtan(tmp_path, (8, 8), train=12, val=3)
    train, val = opened(tmp_path, "depth"), opened(tmp_path, "depth", split="val")
    assert [train[index].id for index in range(len(train))] == [str(number) for number in range(12)]
    assert [val[index].id for index in range(len(val))] == ["0", "1", "2"]
    assert not torch.equal(train[0].image, val[0].image)


def test_only_the_folders_of_the_tasks_asked_for_are_touched(tmp_path: Path) -> None:
    write_mtan(tmp_path, SIZE)
    shutil.rmtree(tmp_path / "train/normal")
    shutil.rmtree(tmp_path / "train/label")
    assert list(opened(tmp_path, "depth")[0].labels) == ["depth"]


def test_a_split_survives_the_way_to_a_worker(tmp_path: Path) -> None:
    split = opened(write_mtan(tmp_path, SIZE))
    here, there = split[0], pickle.loads(pickle.dumps(split))[0]  # noqa: S301
    assert torch.equal(here.image, there.image)
    assert all(torch.equal(label, there.labels[name]) for name, label in here.labels.items())


def test_pictures_in_the_layout_nyud_mt_have_either_kind_of_classes(tmp_path: Path) -> None:
    write_nyud_13(tmp_path)
    few, many = opened(tmp_path)[0], opened(tmp_path, classes=40)[0]
    assert few.labels["semseg"][0].unique().tolist() == [255]
    assert few.labels["semseg"][1].unique().tolist() == [12]
    reference = nyud.NYUD(root=str(tmp_path))
    theirs = reference.split("train", choose(reference.tasks(), None))[0]
    assert few.id == many.id == theirs.id
    assert list(few.labels) == list(many.labels) == list(theirs.labels)
    for name, label in theirs.labels.items():
        assert torch.equal(many.labels[name], label)
        assert name == "semseg" or torch.equal(few.labels[name], label)


def test_nyud_mt_as_published_lacks_the_13_classes_which_follow_from_its_40(tmp_path: Path) -> None:
    many = opened(write_nyud(tmp_path, SIZE), "semseg", classes=40)[0].labels["semseg"].as_subclass(torch.Tensor)
    few = opened(tmp_path, "semseg")[0].labels["semseg"]
    table = torch.full((256,), 255)
    table[:40] = torch.from_numpy(forty_to_13(tmp_path)[1:])
    assert torch.equal(few.as_subclass(torch.Tensor), table[many])


@pytest.mark.parametrize(("write", "own", "classes"), [(write_mtan, "*/normal", 13), (write_nyud, "normals", 40)])
def test_normals_without_files_are_computed_from_depth_and_this_is_said(
    tmp_path: Path, write: Callable[[Path, tuple[int, int]], Path], own: str, classes: int
) -> None:
    dataset = NYUv2(root=str(write(tmp_path, SIZE)), classes=classes)
    tasks = choose(dataset.tasks(), ["semseg", "depth", "normals"])
    assert dataset.notes(tasks) == []
    for folder in list(tmp_path.glob(own)):
        shutil.rmtree(folder)
    assert dataset.notes(tasks) == [COMPUTED]
    labels = dataset.split("train", tasks)[0].labels
    expected = normals_from_depth(labels["depth"].numpy()[0], CAMERA)
    assert (labels["normals"].numpy() == expected).all()


@pytest.mark.parametrize(("write", "classes"), [(write_mtan, 13), (write_nyud, 40)])
def test_edges_without_files_are_derived_from_classes_and_this_is_said(
    tmp_path: Path, write: Callable[[Path, tuple[int, int]], Path], classes: int
) -> None:
    dataset = NYUv2(root=str(write(tmp_path, SIZE)), classes=classes)
    shutil.rmtree(tmp_path / "edge", ignore_errors=True)
    tasks = choose(dataset.tasks(), ["semseg", "edges"])
    labels = dataset.split("train", tasks)[0].labels
    assert (labels["edges"].numpy() == edges_from_classes(labels["semseg"].numpy())).all()
    assert dataset.notes(tasks) == [DERIVED.format(classes)]


def test_a_frame_without_a_surface_has_no_normals(tmp_path: Path) -> None:
    for folder in list(write_mtan(tmp_path, SIZE).glob("*/normal")):
        shutil.rmtree(folder)
    write_npy(tmp_path / "train/depth/0.npy", np.zeros(SIZE))
    assert opened(tmp_path, "normals")[0].labels == {}


def test_normals_that_only_one_split_has_are_missing_in_the_other(tmp_path: Path) -> None:
    shutil.rmtree(write_mtan(tmp_path, SIZE) / "train/normal")
    with pytest.raises(DataError, match="train: no folder normal, which task normals needs"):
        opened(tmp_path, "normals")


def test_a_folder_with_splits_is_taken_for_arrays_before_anything_else(tmp_path: Path) -> None:
    write_nyud_13(write_mtan(tmp_path, SIZE))
    assert opened(tmp_path)[0].id == "0"


def test_arrays_do_not_have_40_classes_but_everything_else(tmp_path: Path) -> None:
    write_mtan(tmp_path, SIZE)
    with pytest.raises(ConfigError, match=r"classes=40, but .* of 13 classes; set dataset.classes=13, or dataset.root"):
        opened(tmp_path, classes=40)
    assert list(opened(tmp_path, "depth", classes=40)[0].labels) == ["depth"]


@pytest.mark.parametrize(("root", "found"), [("", "is not set"), ("nowhere/at/all", "nowhere/at/all is no folder")])
def test_without_a_folder_it_says_which_layouts_it_reads(root: str, found: str) -> None:
    expected = (
        r"official layout: nyu_depth_v2_labeled.mat and splits.mat, .* Or in the layout MTAN: "
        r"{train,val}/image/\*.npy, .*/normal/\*.npy, .* Or in the layout NYUD_MT: .*segmentation"
    )
    with pytest.raises(DataError, match=f"{found}; set dataset.root=DIR to a folder in the {expected}"):
        NYUv2(root=root).split("train", [])


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ([], "holds nothing; set"),
        (["classMapping40.mat", "splits.mat", ".hidden"], "holds classMapping40.mat, splits.mat; set"),
        ([*"abcdefghij"], "holds a, b, c, d, e, f, g, h, ...; set"),
    ],
)
def test_a_folder_in_no_known_layout_is_refused_with_what_it_holds(
    tmp_path: Path, names: list[str], found: str
) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(DataError) as caught:
        opened(tmp_path)
    assert f"{tmp_path} {found} dataset.root=DIR to a folder in the official layout" in str(caught.value)
    assert "Or in the layout NYUD_MT" in str(caught.value)


def test_unknown_splits_and_tasks_are_configuration_errors(tmp_path: Path) -> None:
    dataset = NYUv2(root=str(write_mtan(tmp_path, SIZE)))
    with pytest.raises(ConfigError, match="unknown split 'test'; expected train or val"):
        dataset.split("test", [])
    with pytest.raises(ConfigError, match="unknown task 'parts'; MTAN has semseg, depth, normals, edges"):
        dataset.split("train", [HumanParts("parts")])


def test_a_missing_folder_is_named_with_the_tasks_that_can_do_without_it(tmp_path: Path) -> None:
    shutil.rmtree(write_mtan(tmp_path, SIZE) / "train/depth")
    with pytest.raises(DataError, match=r"train: no folder depth, which task depth .*tasks=\[semseg,normals,edges\]"):
        opened(tmp_path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def with_nan(path: Path) -> None:
    array = np.load(path)
    array[5, 5] = np.nan
    write_npy(path, array)


Damage = Callable[[Path], object]
SPLIT_DAMAGE: dict[str, tuple[str, Damage, str]] = {
    "missing split": ("train", shutil.rmtree, "train/image: no such file; expected a folder of arrays"),
    "missing pictures": ("train/image", shutil.rmtree, "train/image: no such file; expected a folder of arrays"),
    "empty split": ("train/image/0.npy", Path.unlink, "train/image: holds no array"),
    "unnumbered": ("train/image/0.npy", lambda path: path.rename(path.with_name("a.npy")), "a.npy has no number"),
    "missing label": (
        "train/depth/0.npy",
        Path.unlink,
        "1 of the files that image/*.npy calls for are missing: depth/0",
    ),
}
FILE_DAMAGE: dict[str, tuple[str, Damage, str]] = {
    "truncated picture": ("image", cut, "cannot be read as a NumPy array"),
    "picture of objects": ("image", lambda path: write_npy(path, np.full((*SIZE, 3), None)), "Object arrays cannot be"),
    "picture of 0..255": ("image", lambda path: write_npy(path, np.full((*SIZE, 3), 255.0)), "from 255 to 255"),
    "NaN in picture": ("image", with_nan, "values from nan to nan; expected a picture"),
    "picture channels first": (
        "image",
        lambda path: write_npy(path, np.zeros((3, *SIZE))),
        "float64 of shape (3, 24, 32)",
    ),
    "truncated labels": ("label", cut, "cannot be read as a NumPy array"),
    "labels of objects": ("label", lambda path: write_npy(path, np.full(SIZE, None)), "Object arrays cannot be"),
    "labels between classes": ("label", lambda path: write_npy(path, np.full(SIZE, 1.5)), "found 1.5; expected class"),
    "class out of range": ("label", lambda path: write_npy(path, np.full(SIZE, 13)), "task semseg: found 13 "),
    "void labels": ("label", lambda path: write_npy(path, np.full(SIZE, -1)), "no pixel is annotated"),
    "labels of another size": (
        "label",
        lambda path: write_npy(path, np.zeros(SIZE[::-1])),
        "24 x 32 pixels (width x height), but the picture 0 has 32 x 24",
    ),
    "truncated depth": ("depth", cut, "cannot be read as a NumPy array"),
    "integer depth": ("depth", lambda path: write_npy(path, np.ones(SIZE, np.uint16)), "depth as uint16; expected"),
    "depth of three channels": ("depth", lambda path: write_npy(path, np.ones((*SIZE, 3))), "the shape is (24, 32, 3)"),
    "NaN in depth": ("depth", with_nan, "found nan"),
    "negative depth": ("depth", lambda path: write_npy(path, np.full(SIZE, -1.0)), "found -1 "),
    "void depth": ("depth", lambda path: write_npy(path, np.zeros(SIZE)), "no pixel is annotated"),
    "normals channels first": (
        "normal",
        lambda path: write_npy(path, np.zeros((3, *SIZE))),
        "expected normals, floats",
    ),
    "NaN in normals": ("normal", with_nan, "finite components"),
    "void normals": ("normal", lambda path: write_npy(path, np.zeros((*SIZE, 3))), "no pixel is annotated"),
    "normals as bytes": ("normal", lambda path: write_npy(path, np.full((*SIZE, 3), 255.0)), "a component of size 255"),
}


@pytest.mark.parametrize("damage", SPLIT_DAMAGE)
def test_a_damaged_split_is_refused_before_a_picture_is_read(tmp_path: Path, damage: str) -> None:
    name, spoil, message = SPLIT_DAMAGE[damage]
    spoil(write_mtan(tmp_path, SIZE, train=1) / name)
    with pytest.raises(DataError) as caught:
        opened(tmp_path)
    assert str(tmp_path / "train") in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("damage", FILE_DAMAGE)
def test_a_damaged_file_is_refused_when_it_is_read(tmp_path: Path, damage: str) -> None:
    folder, spoil, message = FILE_DAMAGE[damage]
    spoil(write_mtan(tmp_path, SIZE) / f"train/{folder}/0.npy")
    samples = opened(tmp_path)
    assert samples[1].id == "1"
    with pytest.raises(DataError) as caught:
        samples[0]
    assert f"train/{folder}/0.npy" in str(caught.value)
    assert message in str(caught.value)


def test_real_labels_of_13_classes_are_those_of_40_mapped_as_the_toolbox_maps_them(samples: Path) -> None:
    mapping = loadmat(samples / "nyuv2/maps/class13Mapping.mat")["classMapping13"][0, 0]
    assert tuple(str(name.item()) for name in mapping["classNames"][0]) == CLASSES[13]
    to_13 = torch.full((256,), 255)
    to_13[:40] = torch.from_numpy(mapping["labels13"][0].astype(np.int64)) - 1
    root, seen = samples / "nyuv2/NYUD_MT", set()
    for split, count in (("train", 8), ("val", 2)):
        few, many = opened(root, split=split), opened(root, "semseg", split=split, classes=40)
        assert len(few) == count
        for index in range(count):
            sample = few[index]
            assert list(sample.labels) == ["semseg", "depth", "normals", "edges"]
            classes = sample.labels["semseg"].as_subclass(torch.Tensor)
            assert torch.equal(classes, to_13[many[index].labels["semseg"].as_subclass(torch.Tensor)])
            seen.update(classes.unique().tolist())
    assert {CLASSES[13][index] for index in seen - {255}} >= {
        "ceiling",
        "chair",
        "floor",
        "furniture",
        "wall",
        "window",
    }
