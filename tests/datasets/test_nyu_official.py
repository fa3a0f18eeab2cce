"""NYUv2 as its authors published it: the MATLAB file, its classes, what is computed where it is not given."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from scipy.io import loadmat

from mt_core.dataset import Samples, choose
from mt_core.errors import ConfigError, DataError
from mt_core.labels import IGNORE, NormalMap
from mt_datasets.nyu_classes import forty_to_13, raw_to, raw_to_40
from mt_datasets.nyuv2 import COMPUTED, DERIVED, NYUv2

from .layouts import write_mat, write_npy, write_nyu_official, write_png
from .workers import assert_read_alike_in_workers

SIZE = (24, 32)
MAT = "nyu_depth_v2_labeled.mat"
TASKS = ("semseg", "depth", "normals", "edges")


def opened(root: Path, *names: str, split: str = "train", **options: Any) -> Samples:
    dataset = NYUv2(root=str(root), **options)
    return dataset.split(split, choose(dataset.tasks(), names or None))


def replaced(name: str, array: Any) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        with h5py.File(root / MAT, "r+") as file:
            del file[name]
            file[name] = array

    return change


def test_frames_of_the_splits_are_read_with_the_axes_put_right(tmp_path: Path) -> None:
    root = write_nyu_official(tmp_path)
    train, val = opened(root), opened(root, split="val")
    assert [train[i].id for i in range(len(train))] == ["0002", "0004"]
    assert [val[i].id for i in range(len(val))] == ["0001", "0005"]
    with h5py.File(root / MAT) as file:
        for frame, sample in ((1, train[0]), (0, val[0])):
            assert sample.image.shape == (3, *SIZE)
            assert (sample.image.numpy() == file["images"][frame].transpose(0, 2, 1)).all()
            assert (sample.labels["depth"].numpy()[0] == file["depths"][frame].T).all()


@pytest.mark.parametrize("classes", [13, 40])
def test_every_annotation_has_its_type_and_the_size_of_the_picture(tmp_path: Path, classes: int) -> None:
    dataset = NYUv2(root=str(write_nyu_official(tmp_path)), classes=classes)
    sample = dataset.split("train", choose(dataset.tasks(), None))[1]
    assert list(sample.labels) == list(TASKS)
    for name, label in sample.labels.items():
        assert type(label) is dataset.tasks()[name].label
        assert label.shape == (*label.planes, *SIZE)
        assert label.dtype == label.dtype_
        assert label.is_contiguous()


def test_the_tables_that_are_built_in_are_the_official_ones(samples: Path) -> None:
    maps = samples / "nyuv2" / "maps"
    to_40 = loadmat(maps / "classMapping40.mat")["mapClass"].ravel()
    to_13 = loadmat(maps / "class13Mapping.mat")["classMapping13"]["labels13"].item().ravel()
    nowhere = Path("nowhere")
    assert raw_to_40(nowhere).tolist() == [IGNORE, *(to_40.astype(int) - 1)]
    assert forty_to_13(nowhere).tolist() == [IGNORE, *(to_13.astype(int) - 1)]
    literal = [IGNORE] + [int(to_13[number - 1]) - 1 for number in to_40]
    assert raw_to(13, nowhere).tolist() == literal
    for table in (raw_to_40, forty_to_13):
        assert (table(samples / "nyuv2") == table(nowhere)).all()


def test_golden_classes_of_raw_numbers() -> None:
    """894 names of the labelled set: 5 chair, 11 floor, 21 wall, 157 bed."""
    names = NYUv2(classes=40).tasks()["semseg"].classes, NYUv2().tasks()["semseg"].classes
    tables = raw_to(40, Path("nowhere")), raw_to(13, Path("nowhere"))
    found = {raw: [names[i][tables[i][raw]] for i in (0, 1)] for raw in (5, 11, 21, 157)}
    assert found == {5: ["chair"] * 2, 11: ["floor"] * 2, 21: ["wall"] * 2, 157: ["bed"] * 2}


@pytest.mark.parametrize(("classes", "floor", "wall"), [(40, 1, 0), (13, 4, 11)])
def test_raw_labels_become_classes_and_0_is_void(tmp_path: Path, classes: int, floor: int, wall: int) -> None:
    semseg = opened(write_nyu_official(tmp_path), "semseg", classes=classes)[0].labels["semseg"]
    assert semseg[0].tolist() == [IGNORE] * 2 + [wall] * 30
    assert semseg[-1].tolist() == [IGNORE] * 2 + [floor] * 30


def test_tables_that_lie_beside_the_file_are_used(tmp_path: Path) -> None:
    root = write_nyu_official(tmp_path)
    write_mat(root / "maps" / "classMapping40.mat", mapClass=np.full((1, 894), 7, np.uint8))
    assert opened(root, "semseg", classes=40)[0].labels["semseg"].unique().tolist() == [6, IGNORE]


@pytest.mark.parametrize(
    ("name", "variables"),
    [
        ("classMapping40.mat", {"mapClass": np.ones((1, 893))}),
        ("classMapping40.mat", {"mapClass": np.full((1, 894), 41)}),
        ("class13Mapping.mat", {"classMapping13": {"labels13": np.zeros((1, 40))}}),
    ],
)
def test_a_table_that_is_not_the_official_one_is_refused(tmp_path: Path, name: str, variables: dict[str, Any]) -> None:
    write_mat(write_nyu_official(tmp_path) / name, **variables)
    with pytest.raises(DataError, match=rf"{name}: a table of \d+ values; expected the .*its table is built in"):
        opened(tmp_path, "semseg")


def test_a_struct_of_another_form_is_refused(tmp_path: Path) -> None:
    write_mat(write_nyu_official(tmp_path) / "class13Mapping.mat", classMapping13=np.ones(3))
    with pytest.raises(DataError, match="cannot be read as the struct `classMapping13`"):
        opened(tmp_path, "semseg")


def test_depth_is_in_filled_or_as_it_was_measured(tmp_path: Path) -> None:
    root = write_nyu_official(tmp_path)
    assert (opened(root, "depth")[0].labels["depth"] == 4).all()
    raw = opened(root, "depth", raw_depth=True)[0].labels["depth"]
    assert (raw[0, 0] == 0).all()
    assert (raw[0, 1:] == 4).all()


def test_normals_are_computed_and_edges_derived_and_this_is_said(tmp_path: Path) -> None:
    dataset = NYUv2(root=str(write_nyu_official(tmp_path)))
    tasks = choose(dataset.tasks(), TASKS)
    labels = dataset.split("train", tasks)[0].labels
    assert torch.allclose(labels["normals"].permute(1, 2, 0), torch.tensor([0.0, 0, 1]), atol=1e-3)  # a wall
    assert labels["edges"][0, 11, 3:].eq(1).all()
    assert labels["edges"][0, :, :2].ne(0).all()
    assert dataset.notes(tasks) == [COMPUTED, DERIVED.format(40)]
    assert dataset.notes(choose(dataset.tasks(), ["semseg", "depth"])) == []


def test_normals_and_edges_that_are_given_are_read_and_nothing_is_said(tmp_path: Path) -> None:
    root = write_nyu_official(tmp_path)
    up = np.zeros((*SIZE, 3), np.float32)
    up[..., 1] = 1
    write_npy(root / "normals/0002.npy", up)
    write_png(root / "normals/0004.png", np.rint(127.5 * (up + 1)).astype(np.uint8))
    for number in (2, 4):
        write_npy(root / f"edge/{number:04}.npy", np.eye(*SIZE, dtype=np.uint8))
    dataset = NYUv2(root=str(root))
    tasks = choose(dataset.tasks(), ["normals", "edges"])
    for sample in (dataset.split("train", tasks)[i] for i in (0, 1)):
        assert (sample.labels["normals"][1] > 0.999).all()
        assert (sample.labels["edges"].numpy()[0] == np.eye(*SIZE)).all()
    assert dataset.notes(tasks) == []
    with pytest.raises(DataError, match=r"4 of the files beside nyu_depth_v2_labeled.mat .* split val .*edge/0001.npy"):
        dataset.split("val", tasks)


def test_only_what_the_tasks_need_has_to_be_there(tmp_path: Path) -> None:
    root = write_nyu_official(tmp_path)
    with h5py.File(root / MAT, "r+") as file:
        del file["labels"], file["rawDepths"], file["names"]
    assert list(opened(root, "depth", "normals")[0].labels) == ["depth", "normals"]
    with pytest.raises(DataError, match=r"there is no variable 'labels' in it, but #refs#, depths, images; restore"):
        opened(root, "semseg")


def test_a_split_is_read_the_same_in_worker_processes(tmp_path: Path) -> None:
    dataset = NYUv2(root=str(write_nyu_official(tmp_path)))
    assert_read_alike_in_workers(dataset, workers=2)


def test_one_frame_is_read_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Any] = []
    plain = h5py.Dataset.__getitem__
    monkeypatch.setattr(h5py.Dataset, "__getitem__", lambda self, key: read.append(key) or plain(self, key))
    samples = opened(write_nyu_official(tmp_path))
    assert read == []
    samples[1]
    assert set(read) == {3}


def test_the_reader_of_hdf5_is_imported_when_it_is_needed_only() -> None:
    code = "import sys, mt_datasets.nyuv2, mt_datasets.folder; assert 'h5py' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_splits_are_configuration_errors_and_raw_depth_needs_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown split 'test'; expected train or val"):
        opened(write_nyu_official(tmp_path), split="test")
    (tmp_path / "other/train").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"raw_depth=true, but .* has no nyu_depth_v2_labeled.mat, which alone"):
        opened(tmp_path / "other", raw_depth=True)


def linked(root: Path) -> None:
    with h5py.File(root / "other.mat", "w") as other, h5py.File(root / MAT, "r+") as file:
        other["images"] = file["images"][:]
        del file["images"]
        file["images"] = h5py.ExternalLink("other.mat", "images")


def cut(root: Path) -> None:
    path = root / MAT
    path.write_bytes(path.read_bytes()[:3000])


def splits(**numbers: Any) -> Callable[[Path], None]:
    return lambda root: write_mat(root / "splits.mat", **numbers)


SPLIT_DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no splits": (
        lambda root: (root / "splits.mat").unlink(),
        r"splits.mat: no such file, but nyu_depth_v2.*; it is offered at",
    ),
    "split out of range": (splits(trainNdxs=np.array([[1], [6]])), "expected numbers from 1 to 5"),
    "split from 0": (splits(trainNdxs=np.array([[0]])), "trainNdxs lists 0; expected numbers from 1"),
    "split twice": (splits(trainNdxs=np.array([[3], [3]])), "trainNdxs lists 3 twice; expected"),
    "empty split": (splits(trainNdxs=np.zeros((0, 0))), "trainNdxs is no list of frames; expected"),
    "no such split": (splits(other=1), "holds no variable 'trainNdxs'"),
    "truncated": (cut, "cannot be read as a MATLAB 7.3 file"),
    "not HDF5": (lambda root: (root / MAT).write_bytes(b"MATLAB 5.0 MAT-file"), "cannot be read as a MATLAB 7.3 file"),
    "pictures elsewhere": (linked, "images is no array of unsigned integers in this file"),
    "labels of floats": (replaced("labels", np.ones((5, 32, 24))), "labels is no array of unsigned integers"),
    "depths of another size": (
        replaced("depths", np.ones((5, 24, 32))),
        r"depths is \(5, 24, 32\); expected .*, as images has it",
    ),
    "one picture": (replaced("images", np.ones((3, 32, 24), np.uint8)), r"images is \(3, 32, 24\); expected frames fi"),
}


@pytest.mark.parametrize("damage", SPLIT_DAMAGE)
def test_a_damaged_set_is_refused_before_a_frame_is_read(tmp_path: Path, damage: str) -> None:
    spoil, message = SPLIT_DAMAGE[damage]
    spoil(write_nyu_official(tmp_path))
    with pytest.raises(DataError, match=message):
        opened(tmp_path)


def set_to(name: str, value: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file[name][1] = value

    return change


FRAME_DAMAGE: dict[str, tuple[Callable[[h5py.File], None], str]] = {
    "unknown class": (set_to("labels", 895), "frame 2: label 895; expected one of the 894 classes of NYUv2"),
    "nothing labelled": (set_to("labels", 0), "no pixel is annotated"),
    "NaN in depth": (set_to("depths", np.nan), "frame 2: task depth: found nan"),
    "negative depth": (set_to("depths", -1), "frame 2: task depth: found -1"),
    "no depth": (set_to("depths", 0), "no pixel is annotated"),
}


@pytest.mark.parametrize("damage", FRAME_DAMAGE)
def test_a_damaged_frame_is_refused_when_it_is_read(tmp_path: Path, damage: str) -> None:
    change, message = FRAME_DAMAGE[damage]
    with h5py.File(write_nyu_official(tmp_path) / MAT, "r+") as file:
        change(file)
    samples = opened(tmp_path)
    assert samples[1].id == "0004"
    with pytest.raises(DataError, match=message) as caught:
        samples[0]
    assert MAT in str(caught.value)


def test_a_frame_without_a_surface_has_no_normals(tmp_path: Path) -> None:
    with h5py.File(write_nyu_official(tmp_path) / MAT, "r+") as file:
        file["depths"][1] = 0
    assert opened(tmp_path, "normals")[0].labels == {}
    assert bool(NormalMap.valid(opened(tmp_path, "normals")[1].labels["normals"]).any())
