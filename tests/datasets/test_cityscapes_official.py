"""Cityscapes as its authors published it: cities, ids of labels, disparity and cameras; and inverse depth."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as F

from mt_core.augment import RandomZoom, seeded
from mt_core.dataset import Sample, Samples, choose
from mt_core.errors import ConfigError, DataError
from mt_core.labels import ClassMap, DepthMap
from mt_core.protocols import protocol
from mt_core.tasks import Depth
from mt_core.testing import TaskConformance
from mt_datasets.cityscapes import CLASSES, Cityscapes, DepthForm
from mt_datasets.inverse_depth import InverseDepth, InverseDepthMap

from .layouts import write_cityscapes, write_picture, write_png

SIZE = (16, 32)
FIRST = "train/aachen/aachen_000000_000019"

# id: (name, trainId or -1, category), of labels.py in mcordts/cityscapesScripts; 255 and -1 are ignored in evaluation
OFFICIAL = """0 unlabeled -1 void, 1 ego vehicle -1 void, 2 rectification border -1 void, 3 out of roi -1 void, 4
static -1 void, 5 dynamic -1 void, 6 ground -1 void, 7 road 0 flat, 8 sidewalk 1 flat, 9 parking -1
flat, 10 rail track -1 flat, 11 building 2 construction, 12 wall 3 construction, 13 fence 4
construction, 14 guard rail -1 construction, 15 bridge -1 construction, 16 tunnel -1 construction,
17 pole 5 object, 18 polegroup -1 object, 19 traffic light 6 object, 20 traffic sign 7 object, 21
vegetation 8 nature, 22 terrain 9 nature, 23 sky 10 sky, 24 person 11 human, 25 rider 12 human, 26
car 13 vehicle, 27 truck 14 vehicle, 28 bus 15 vehicle, 29 caravan -1 vehicle, 30 trailer -1
vehicle, 31 train 16 vehicle, 32 motorcycle 17 vehicle, 33 bicycle 18 vehicle"""


def expected_classes(classes: int) -> list[int]:
    """The class of every id, as the official table says it."""
    found = []
    for entry in OFFICIAL.replace("\n", " ").split(", "):
        _, *name, train, category = entry.split(" ")
        ignored = train == "-1"
        index = CLASSES[19].index(" ".join(name)) if not ignored else 255
        assert ignored or index == int(train)
        found.append(255 if ignored else index if classes == 19 else CLASSES[7].index(category))
    return found


def opened(root: Path, *names: str, split: str = "train", **options: Any) -> Samples:
    dataset = Cityscapes(root=str(root), **options)
    return dataset.split(split, choose(dataset.tasks(), names or None))


class TestInverseDepth(TaskConformance):
    entry = InverseDepth("depth")


def test_pictures_come_city_by_city_and_are_named_as_their_files(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path)
    train = opened(root)
    assert [train[i].id for i in range(len(train))] == [
        "aachen_000000_000019", "aachen_000002_000019", "bochum_000001_000019"
    ]  # fmt: skip
    assert [sample.id for sample in opened(root, split="val")] == ["aachen_000000_000019"]  # type: ignore[attr-defined]
    stored = np.array(Image.open(root / f"leftImg8bit/{FIRST}_leftImg8bit.png"))
    assert (train[0].image.numpy() == stored.transpose(2, 0, 1)).all()


def test_every_annotation_has_its_type_and_the_size_of_the_picture(tmp_path: Path) -> None:
    for form, kind in ((DepthForm.metres, DepthMap), (DepthForm.inverse, InverseDepthMap)):
        dataset = Cityscapes(root=str(write_cityscapes(tmp_path, SIZE)), depth=form)
        sample = dataset.split("train", choose(dataset.tasks(), None))[0]
        assert {name: type(label) for name, label in sample.labels.items()} == {"semseg": ClassMap, "depth": kind}
        for label in sample.labels.values():
            assert label.shape == (*label.planes, *SIZE)
            assert label.dtype == label.dtype_


@pytest.mark.parametrize("classes", [7, 19])
def test_ids_become_classes_as_the_official_table_says(tmp_path: Path, classes: int) -> None:
    write_png(
        write_cityscapes(tmp_path, (2, 17)) / f"gtFine/{FIRST}_gtFine_labelIds.png",
        np.arange(34, dtype=np.uint8).reshape(2, 17),
    )
    semseg = opened(tmp_path, "semseg", classes=classes)[0].labels["semseg"]
    assert semseg.flatten().tolist() == expected_classes(classes)


def test_metres_follow_from_disparity_and_camera(tmp_path: Path) -> None:
    path = write_cityscapes(tmp_path, (1, 4)) / f"disparity/{FIRST}_disparity.png"
    write_png(path, np.array([[0, 1, 257, 12801]], np.uint16))  # missing, infinite, 1 pixel, 50 pixels
    depth = opened(tmp_path, "depth", depth=DepthForm.metres)[0].labels["depth"]
    expected = [0, 0, 0.209313 * 2262.52, 0.209313 * 2262.52 / 50]
    np.testing.assert_allclose(depth.flatten().tolist(), expected, rtol=1e-6)


def test_inverse_depth_is_that_of_the_papers_copies(tmp_path: Path) -> None:
    path = write_cityscapes(tmp_path, (1, 3)) / f"disparity/{FIRST}_disparity.png"
    write_png(path, np.array([[0, 1, 32257]], np.uint16))
    depth = opened(tmp_path, "depth")[0].labels["depth"]
    np.testing.assert_allclose(depth.flatten().tolist(), [0, 1 / 65535, 0.4922], atol=1e-4)


def test_inverse_depth_needs_no_camera_and_classes_no_disparity(tmp_path: Path) -> None:
    shutil.rmtree(write_cityscapes(tmp_path) / "camera")
    assert list(opened(tmp_path)[0].labels) == ["semseg", "depth"]
    with pytest.raises(DataError, match=r"no folder camera/train, which task depth needs; .*tasks=\[semseg\]"):
        opened(tmp_path, depth=DepthForm.metres)
    shutil.rmtree(tmp_path / "disparity")
    assert list(opened(tmp_path, "semseg")[0].labels) == ["semseg"]


def test_a_zoom_multiplies_inverse_depth_as_it_divides_depth() -> None:
    inverse = torch.full((1, 12, 16), 0.1)
    sample = Sample("p", F.to_image(np.zeros((12, 16, 3), np.uint8)), {"depth": InverseDepthMap(inverse)})
    zoomed = RandomZoom(2, 2)(sample, seeded(0)).labels["depth"]
    assert type(zoomed) is InverseDepthMap
    torch.testing.assert_close(zoomed.as_subclass(torch.Tensor), 2 * inverse)
    shrunk = RandomZoom(0.5, 0.5)(sample, seeded(0)).labels["depth"].as_subclass(torch.Tensor)
    assert sorted(shrunk.unique().tolist()) == pytest.approx([0, 0.05])


def test_near_is_bright_in_both_forms_of_depth() -> None:
    depth = torch.linspace(2, 60, 30).view(1, 5, 6)
    bright = Depth("depth").colours(depth).float().mean(0)
    inverse = InverseDepth("depth").colours(1 / depth).float().mean(0)
    assert bright[0, 0] > bright[-1, -1]
    assert inverse[0, 0] > inverse[-1, -1]


def test_inverse_depth_is_measured_as_depth_is() -> None:
    metrics = protocol("astmt").metrics(InverseDepth("depth"))
    assert list(metrics) == list(protocol("astmt").metrics(Depth("depth")))


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_inverse_depth_out_of_range_is_refused(value: float) -> None:
    label = torch.full((1, 2, 2), 0.5)
    label[0, 1, 0] = value
    with pytest.raises(
        DataError, match=r"x.png: task depth: found .* at row 1, column 0 \(1 such values\); expected inv"
    ):
        InverseDepth("depth").check(label, "x.png")


def test_unknown_splits_are_configuration_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown split 'test'; expected train or val"):
        opened(write_cityscapes(tmp_path), split="test")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def written(camera: Any) -> Callable[[Path], object]:
    return lambda path: path.write_text(json.dumps(camera))


Damage = Callable[[Path], object]
SPLIT_DAMAGE: dict[str, tuple[str, Damage, str]] = {
    "no such split": ("leftImg8bit/train", shutil.rmtree, "no such file; expected a folder of cities with files"),
    "no picture": (
        f"leftImg8bit/{FIRST}_leftImg8bit.png",
        lambda path: shutil.rmtree(path.parents[1]) or path.parent.mkdir(parents=True),
        "no city has a picture",
    ),
    "no labels": (
        f"gtFine/{FIRST}_gtFine_labelIds.png",
        Path.unlink,
        f"are missing: gtFine/{FIRST}_gtFine_labelIds.png",
    ),
    "no camera": (f"camera/{FIRST}_camera.json", Path.unlink, f"are missing: camera/{FIRST}_camera.json"),
}
FILE_DAMAGE: dict[str, tuple[str, Damage, str]] = {
    "truncated picture": ("leftImg8bit/{}_leftImg8bit.png", cut, "cannot be read"),
    "unknown id": (
        "gtFine/{}_gtFine_labelIds.png",
        lambda path: write_png(path, np.full(SIZE, 34, np.uint8)),
        "found id 34; expected ids of Cityscapes, 0 to 33",
    ),
    "labels in colour": (
        "gtFine/{}_gtFine_labelIds.png",
        lambda path: write_picture(path, np.random.default_rng(0), SIZE),
        "mode RGB; expected",
    ),
    "nothing annotated": (
        "gtFine/{}_gtFine_labelIds.png",
        lambda path: write_png(path, np.zeros(SIZE, np.uint8)),
        "no pixel is",
    ),
    "labels of another size": (
        "gtFine/{}_gtFine_labelIds.png",
        lambda path: write_png(path, np.full((8, 16), 7, np.uint8)),
        "16 x 8 pixels",
    ),
    "disparity of 8 bits": (
        "disparity/{}_disparity.png",
        lambda path: write_png(path, np.ones(SIZE, np.uint8)),
        "mode L; expected 16-bit greyscale",
    ),
    "truncated disparity": ("disparity/{}_disparity.png", cut, "cannot be read as a 16-bit greyscale PNG"),
    "no disparity": (
        "disparity/{}_disparity.png",
        lambda path: write_png(path, np.zeros(SIZE, np.uint16)),
        "no pixel is",
    ),
    "truncated camera": ("camera/{}_camera.json", cut, "cannot be read as a camera: JSON with extrinsic.baseline"),
    "camera without fx": (
        "camera/{}_camera.json",
        written({"extrinsic": {"baseline": 0.2}}),
        "cannot be read as a camera",
    ),
    "negative baseline": (
        "camera/{}_camera.json",
        written({"extrinsic": {"baseline": -0.2}, "intrinsic": {"fx": 2262}}),
        "baseline and fx are -0.2 and 2262; expected metres",
    ),
    "infinite fx": (
        "camera/{}_camera.json",
        written({"extrinsic": {"baseline": 0.2}, "intrinsic": {"fx": float("inf")}}),
        "baseline and fx are 0.2 and inf; expected",
    ),
}


@pytest.mark.parametrize("damage", SPLIT_DAMAGE)
def test_a_damaged_split_is_refused_before_a_picture_is_read(tmp_path: Path, damage: str) -> None:
    name, spoil, message = SPLIT_DAMAGE[damage]
    spoil(write_cityscapes(tmp_path) / name)
    with pytest.raises(DataError) as caught:
        opened(tmp_path, depth=DepthForm.metres)
    assert message in str(caught.value)


@pytest.mark.parametrize("damage", FILE_DAMAGE)
def test_a_damaged_file_is_refused_when_it_is_read(tmp_path: Path, damage: str) -> None:
    pattern, spoil, message = FILE_DAMAGE[damage]
    name = pattern.format(FIRST)
    spoil(write_cityscapes(tmp_path) / name)
    samples = opened(tmp_path, depth=DepthForm.metres)
    assert samples[1].id == "aachen_000002_000019"
    with pytest.raises(DataError) as caught:
        samples[0]
    assert name in str(caught.value)
    assert message in str(caught.value)
