"""NYUD: its tasks, what is read, which files are touched, and what is said of damaged data sets."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import tv_tensors

from mt_core.dataset import IncompleteError, Samples, choose, collate, name_of
from mt_core.errors import ConfigError, DataError
from mt_core.labels import BinaryMap, ClassMap, DepthMap, NormalMap
from mt_datasets.nyud import NYUD

from .layouts import write_npy, write_nyud, write_png

SIZE = (24, 32)


def opened(root: Path, *names: str, split: str = "train") -> Samples:
    dataset = NYUD(root=str(root))
    return dataset.split(split, choose(dataset.tasks(), names or None))


def test_it_has_four_tasks_with_the_channels_of_the_papers_and_needs_no_files_to_say_so() -> None:
    tasks = NYUD().tasks()
    assert {name: task.channels for name, task in tasks.items()} == {"semseg": 40, "depth": 1, "normals": 3, "edges": 1}
    assert tasks["semseg"].classes[:3] == ("wall", "floor", "cabinet")
    assert tasks["semseg"].classes[19] == "floor mat"


def test_every_annotation_is_read_in_its_type_and_the_size_of_the_picture(tmp_path: Path) -> None:
    sample = opened(write_nyud(tmp_path, SIZE))[0]
    assert sample.id == "0001"
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


def test_classes_count_from_1_on_disk_and_0_is_void(tmp_path: Path) -> None:
    samples = opened(write_nyud(tmp_path, SIZE), "semseg")
    stored = torch.from_numpy(np.array(Image.open(tmp_path / "segmentation/0002.png"))).long()
    classes = samples[1].labels["semseg"]
    assert (stored == 0).any()
    assert (classes[stored == 0] == 255).all()
    assert (classes[stored > 0] == stored[stored > 0] - 1).all()


def test_depth_is_metres_and_0_where_it_is_missing(tmp_path: Path) -> None:
    depth = opened(write_nyud(tmp_path, SIZE), "depth")[0].labels["depth"]
    assert (depth.numpy() == np.load(tmp_path / "depth/0001.npy")).all()
    assert not DepthMap.valid(depth)[0].any()
    assert DepthMap.valid(depth)[1:].all()


@pytest.mark.parametrize("index", [0, 1])
def test_normals_are_unit_vectors_from_either_kind_of_file(tmp_path: Path, index: int) -> None:
    normals = opened(write_nyud(tmp_path, SIZE), "normals")[index].labels["normals"]
    assert (normals[:, 0] == 0).all()
    assert torch.allclose(normals[:, 1:].norm(dim=0), torch.tensor(1.0), atol=1e-6)


def test_probabilities_of_edges_are_edges_from_one_half_on(tmp_path: Path) -> None:
    write_npy(write_nyud(tmp_path, (1, 4)) / "edge/0001.npy", np.array([[0, 0.49, 0.5, 1]]))
    assert opened(tmp_path, "edges")[0].labels["edges"].tolist() == [[[0, 0, 1, 1]]]


def test_only_the_files_of_the_tasks_asked_for_are_touched(tmp_path: Path) -> None:
    write_nyud(tmp_path, SIZE)
    for folder in ("depth", "normals", "edge"):
        shutil.rmtree(tmp_path / folder)
    assert list(opened(tmp_path, "semseg")[0].labels) == ["semseg"]


def test_a_split_is_read_the_same_in_worker_processes_and_every_time(tmp_path: Path) -> None:
    samples = opened(write_nyud(tmp_path, SIZE))
    tasks = tuple(NYUD().tasks().values())
    together = partial(collate, tasks=tasks)
    copy: Any = pickle.loads(pickle.dumps(samples))  # noqa: S301
    here = together([samples[0], samples[1]])
    (there,) = DataLoader(copy, 2, num_workers=1, collate_fn=together)
    assert here.ids == there.ids == ["0001", "0002"]
    assert torch.equal(here.images, there.images)
    for name, labels in here.labels.items():
        assert torch.equal(labels, there.labels[name])
        assert here.present[name].all()


def test_val_is_another_list(tmp_path: Path) -> None:
    assert [sample.id for sample in opened(write_nyud(tmp_path, SIZE), split="val")] == ["0003"]  # type: ignore[attr-defined]


def test_unknown_splits_and_tasks_are_configuration_errors(tmp_path: Path) -> None:
    dataset = NYUD(root=str(write_nyud(tmp_path, SIZE)))
    with pytest.raises(ConfigError, match="unknown split 'test'; expected train or val"):
        dataset.split("test", [])
    parts = type(dataset.tasks()["semseg"])("human_parts", 7)
    with pytest.raises(ConfigError, match="unknown task 'human_parts'; NYUD_MT has semseg, depth, normals, edges"):
        dataset.split("train", [parts])


@pytest.mark.parametrize(("root", "found"), [("", "is not set"), ("nowhere/at/all", "nowhere/at/all is no folder")])
def test_without_a_folder_it_says_which_option_to_set_and_what_is_expected_there(root: str, found: str) -> None:
    with pytest.raises(DataError, match=f"{found}; set dataset.root=DIR .*NYUD_MT: gt_sets.*depth/.*NYUD_MT.tgz"):
        NYUD(root=root).split("train", [])


def test_a_missing_folder_is_named_with_the_tasks_that_can_do_without_it(tmp_path: Path) -> None:
    shutil.rmtree(write_nyud(tmp_path, SIZE) / "normals")
    with pytest.raises(DataError, match=r"no folder normals, which task normals .*tasks=\[semseg,depth,edges\]"):
        opened(tmp_path)


def test_without_any_picture_no_task_can_be_trained(tmp_path: Path) -> None:
    shutil.rmtree(write_nyud(tmp_path, SIZE) / "images")
    with pytest.raises(DataError, match="no folder images, which task depth needs; add it, or no task can do without"):
        opened(tmp_path, "depth")


def test_missing_files_are_counted_and_the_first_are_named_before_any_is_read(tmp_path: Path) -> None:
    write_nyud(tmp_path, SIZE, train=8)
    for name in ("0002", "0003", "0004", "0005", "0006", "0007"):
        (tmp_path / f"normals/{name}.npy").unlink(missing_ok=True)
        (tmp_path / f"normals/{name}.png").unlink(missing_ok=True)
    with pytest.raises(DataError) as caught:
        opened(tmp_path)
    assert "6 of the files that gt_sets/train.txt calls for are missing: normals/0002.npy or normals/0002.png, " in str(
        caught.value
    )
    assert "0006.png, ...; restore them" in str(caught.value)
    assert "0007" not in str(caught.value)


def test_an_incomplete_split_knows_every_fault_and_has_the_other_pictures(tmp_path: Path) -> None:
    write_nyud(tmp_path, SIZE, train=3)
    (tmp_path / "images/0001.jpg").unlink()
    (tmp_path / "edge/0003.npy").unlink()
    (tmp_path / "gt_sets/train.txt").write_text("0001\n0002\n0002\n../x\n0003\n../y\n")
    with pytest.raises(IncompleteError, match=r"'0002' stands twice.*2 of the files that") as caught:
        opened(tmp_path)
    listed = tmp_path / "gt_sets/train.txt"
    assert [(fault.file, fault.id, fault.task) for fault in caught.value.faults] == [
        (listed, "", ""), (listed, "", ""), (listed, "", ""),
        (tmp_path / "images/0001.jpg", "0001", ""), (tmp_path / "edge/0003.npy", "0003", "edges"),
    ]  # fmt: skip
    samples = caught.value.samples
    travelled = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - as between processes
    assert (str(travelled), travelled.faults) == (str(caught.value), caught.value.faults)
    assert [name_of(samples, index) for index in range(len(samples))] == ["0001", "0002", "0003"]
    assert samples[1].id == "0002"
    with pytest.raises(DataError, match=r"images/0001\.jpg: no such file"):
        samples[0]
    names = [path.relative_to(tmp_path).as_posix() for path in samples.files(1)]  # type: ignore[attr-defined]
    assert names == ["images/0002.jpg", "segmentation/0002.png", "depth/0002.npy", "normals/0002.png", "edge/0002.npy"]


@pytest.mark.parametrize("call", ["scandir", "stat"])
def test_a_folder_that_may_not_be_looked_into_is_named(
    tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_nyud(tmp_path, SIZE)

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(os, call, refused)
        with pytest.raises(DataError, match=r"cannot be read as .*Permission denied"):
            opened(tmp_path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def with_nan(path: Path) -> None:
    depth = np.load(path)
    depth[5, 5] = np.nan
    write_npy(path, depth)


Damage = Callable[[Path], object]
SPLIT_DAMAGE: dict[str, tuple[str, Damage, str]] = {
    "missing list": ("gt_sets/train.txt", Path.unlink, "no such file; set dataset.root=DIR to a folder in"),
    "empty split": ("gt_sets/train.txt", lambda path: path.write_text("\n"), "lists no picture"),
    "duplicate id": ("gt_sets/train.txt", lambda path: path.write_text("0001\n0001"), "'0001' stands twice"),
    "id outside": ("gt_sets/train.txt", lambda path: path.write_text("../0001"), "'../0001' is no name of a picture"),
    "list not UTF-8": ("gt_sets/train.txt", lambda path: path.write_bytes(b"\xff01"), "cannot be read as a UTF-8 text"),
    "missing picture": ("images/0001.jpg", Path.unlink, "1 of the files that gt_sets/train.txt calls for"),
    "missing label": ("depth/0001.npy", Path.unlink, "1 of the files that gt_sets/train.txt calls for"),
}
FILE_DAMAGE: dict[str, tuple[str, Damage, str]] = {
    "truncated picture": ("images/0001.jpg", cut, "cannot be read as a JPEG picture"),
    "truncated classes": ("segmentation/0001.png", cut, "cannot be read as a PNG of class indices"),
    "truncated depth": ("depth/0001.npy", cut, "cannot be read as a NumPy array"),
    "longer depth": (
        "depth/0001.npy",
        lambda path: path.write_bytes(path.read_bytes() + b"0"),
        "goes on after its array",
    ),
    "PNG cut at its end": (
        "segmentation/0001.png",
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        "the PNG is cut off after",
    ),
    "PNG changed": (
        "segmentation/0001.png",
        lambda path: path.write_bytes(path.read_bytes()[:-1] + b"0"),
        "the check sum of the chunk at byte",
    ),
    "normals of half the length": (
        "normals/0001.npy",
        lambda path: write_npy(path, np.load(path) * 0.7),
        "most normals are not of unit length (the median is 0.7)",
    ),
    "object depth": ("depth/0001.npy", lambda path: write_npy(path, np.full(SIZE, None)), "Object arrays cannot be"),
    "integer depth": ("depth/0001.npy", lambda path: write_npy(path, np.ones(SIZE, np.uint16)), "depth as uint16; exp"),
    "NaN in depth": ("depth/0001.npy", with_nan, "found nan"),
    "negative depth": ("depth/0001.npy", lambda path: write_npy(path, np.full(SIZE, -1.0)), "-1"),
    "void depth": ("depth/0001.npy", lambda path: write_npy(path, np.zeros(SIZE)), "no pixel is annotated"),
    "class out of range": (
        "segmentation/0001.png",
        lambda path: write_png(path, np.full(SIZE, 41, np.uint8)),
        "the file from 1): task semseg: found 40 ",
    ),
    "void classes": ("segmentation/0001.png", lambda path: write_png(path, np.zeros(SIZE, np.uint8)), "no pixel is"),
    "void normals": ("normals/0001.npy", lambda path: write_npy(path, np.zeros((*SIZE, 3))), "no pixel is annotated"),
    "NaN in normals": ("normals/0001.npy", lambda path: write_npy(path, np.full((*SIZE, 3), np.nan)), "finite"),
    "edges out of range": ("edge/0001.npy", lambda path: write_npy(path, np.full(SIZE, 2)), "values outside 0..1"),
    "wrong size": (
        "edge/0001.npy",
        lambda path: write_npy(path, np.zeros((32, 24))),
        "24 x 32 pixels (width x height), but the picture 0001 has 32 x 24",
    ),
}


@pytest.mark.parametrize("damage", SPLIT_DAMAGE)
def test_a_damaged_split_is_refused_before_a_picture_is_read(tmp_path: Path, damage: str) -> None:
    name, spoil, message = SPLIT_DAMAGE[damage]
    spoil(write_nyud(tmp_path, SIZE) / name)
    with pytest.raises(DataError) as caught:
        opened(tmp_path)
    assert name in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("damage", FILE_DAMAGE)
def test_a_damaged_file_is_refused_when_it_is_read(tmp_path: Path, damage: str) -> None:
    name, spoil, message = FILE_DAMAGE[damage]
    spoil(write_nyud(tmp_path, SIZE) / name)
    samples = opened(tmp_path)
    assert samples[1].id == "0002"
    with pytest.raises(DataError) as caught:
        samples[0]
    assert name in str(caught.value)
    assert message in str(caught.value)


def test_real_frames_have_all_four_annotations_and_floors_that_face_up(samples: Path) -> None:
    root = samples / "nyuv2" / "NYUD_MT"
    up = []
    for split, count in (("train", 8), ("val", 2)):
        frames = opened(root, split=split)
        assert len(frames) == count
        for index in range(count):
            labels = frames[index].labels
            assert set(labels) == {"semseg", "depth", "normals", "edges"}
            floor = (labels["semseg"] == 1) & NormalMap.valid(labels["normals"])
            up.append(labels["normals"][1][floor].as_subclass(torch.Tensor))
            assert 0.5 < labels["depth"][labels["depth"] > 0].median() < 8
    assert torch.cat(up).numel() > 10_000
    assert torch.cat(up).median() > 0.8
