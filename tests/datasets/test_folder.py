"""A user's own folder: what a description may say, how files are read, and what is said of what cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mt_core.dataset import Samples, choose, collate
from mt_core.errors import ConfigError, DataError
from mt_core.testing import DatasetConformance
from mt_datasets.folder import Folder

from .layouts import write_npy, write_picture, write_png
from .workers import assert_read_alike_in_workers

SIZE = (24, 32)
NAMES = ("a", "b", "c")
FULL = """
images: rgb/*.png
splits: {train: lists/train.txt, val: lists/val.txt}
image_size: [48, 64]
tasks:
  classes: {kind: segmentation, files: labels/*.png, classes: [wall, floor, bed], first: 1, ignore: 0}
  parts: {kind: human_parts, files: parts/*.npy, classes: 7, ignore: [255, -1], partial: true}
  mask: {kind: saliency, above: 127}
  borders: {kind: edges, files: borders/*.npy, above: 0.5, ignore: .nan}
  depth: {kind: depth, scale: 0.001}
  disparity: {kind: inverse_depth, files: disparity/*.npy}
  normals: {kind: normals, files: normals/*.npy, axes: [right, down, away]}
"""


def write_folder(root: Path) -> Path:
    """Three pictures with every kind of annotation, as FULL describes them; c has no parts."""
    root.mkdir(exist_ok=True)
    (root / "dataset.yaml").write_text(FULL)
    (root / "lists").mkdir()
    (root / "lists/train.txt").write_text("a\nb\n")
    (root / "lists/val.txt").write_text("b\nc\n")
    for seed, name in enumerate(NAMES):
        rng = np.random.default_rng(seed)
        write_picture(root / f"rgb/{name}.png", rng, SIZE)
        write_png(root / f"labels/{name}.png", rng.integers(0, 4, SIZE).astype(np.uint8))
        if name != "c":
            write_npy(root / f"parts/{name}.npy", rng.integers(-1, 7, SIZE))
        write_png(root / f"mask/{name}.png", rng.integers(0, 256, SIZE).astype(np.uint8))
        write_npy(root / f"borders/{name}.npy", np.where(rng.random(SIZE) < 0.1, np.nan, rng.random(SIZE)))
        write_png(root / f"depth/{name}.png", rng.integers(0, 9000, SIZE).astype(np.uint16))
        write_npy(root / f"disparity/{name}.npy", rng.integers(0, 200, SIZE))
        vectors = rng.normal(size=(*SIZE, 3))
        write_npy(root / f"normals/{name}.npy", vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))
    return root


def opened(root: Path, *names: str, split: str = "train", **options: Any) -> Samples:
    dataset = Folder(root=str(root), **options)
    return dataset.split(split, choose(dataset.tasks(), names or None))


def described(root: Path, text: str) -> Path:
    (root / "dataset.yaml").write_text(text)
    return root


class TestContract(DatasetConformance):
    @pytest.fixture
    def dataset(self, tmp_path: Path) -> Folder:
        return Folder(root=str(write_folder(tmp_path)))


def test_the_description_says_which_tasks_there_are_and_their_size(tmp_path: Path) -> None:
    dataset = Folder(root=str(write_folder(tmp_path)))
    assert {name: (task.kind, task.channels) for name, task in dataset.tasks().items()} == {
        "classes": ("segmentation", 3),
        "parts": ("human_parts", 7),
        "mask": ("saliency", 1),
        "borders": ("edges", 1),
        "depth": ("depth", 1),
        "disparity": ("inverse_depth", 1),
        "normals": ("normals", 3),
    }
    assert dataset.tasks()["classes"].classes == ("wall", "floor", "bed")
    assert dataset.image_size == (48, 64)


def test_files_are_read_as_the_description_says(tmp_path: Path) -> None:
    sample = opened(write_folder(tmp_path))[0]
    labels = {name: label.numpy() for name, label in sample.labels.items()}
    stored = {path.parent.name: path for path in tmp_path.glob("*/a.*")}
    numbers = np.array(Image.open(stored["labels"])).astype(int)
    assert (labels["classes"] == np.where(numbers == 0, 255, numbers - 1)).all()
    parts = np.load(stored["parts"])
    assert (labels["parts"] == np.where(parts == -1, 255, parts)).all()
    grey = np.array(Image.open(stored["mask"]))
    assert (labels["mask"][0] == (grey > 127)).all()
    borders = np.load(stored["borders"])
    assert (labels["borders"][0] == np.where(np.isnan(borders), 255, borders > 0.5)).all()
    millimetres = np.array(Image.open(stored["depth"]))
    np.testing.assert_allclose(labels["depth"][0], millimetres / 1000, rtol=1e-6)
    assert (labels["disparity"][0] == np.load(stored["disparity"])).all()
    np.testing.assert_allclose(
        labels["normals"].transpose(1, 2, 0), np.load(stored["normals"]) * [1, -1, -1], atol=1e-6
    )


@pytest.mark.parametrize(
    ("axes", "expected"),
    [("[right, up, towards]", [1, 2, 3]), ("[left, up, away]", [-1, 2, -3]), ("[away, right, down]", [2, -3, -1])],
)
def test_the_components_of_normals_point_where_the_description_says(
    tmp_path: Path, axes: str, expected: list[int]
) -> None:
    root = described(
        write_folder(tmp_path),
        f"images: rgb/*.png\ntasks: {{n: {{kind: normals, files: normals/*.npy, axes: {axes}}}}}",
    )
    for split in ("train", "val"):
        (root / f"{split}.txt").write_text("a")
    vector = np.array([1, 2, 3]) / np.linalg.norm([1, 2, 3])
    write_npy(root / "normals/a.npy", np.broadcast_to(vector, (*SIZE, 3)))
    found = opened(root)[0].labels["n"][:, 0, 0] * np.linalg.norm([1, 2, 3])
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


def test_little_has_to_be_said(tmp_path: Path) -> None:
    write_picture(tmp_path / "images/x.jpg", np.random.default_rng(0), SIZE)
    write_png(tmp_path / "depth/x.png", np.full(SIZE, 1500, np.uint16))
    for split in ("train", "val"):
        (tmp_path / f"{split}.txt").write_text("x")
    described(tmp_path, "tasks: {depth: {kind: depth}}")
    assert opened(tmp_path)[0].labels["depth"].eq(1.5).all()
    assert Folder(root=str(tmp_path)).image_size == (256, 256)


def test_splits_may_be_folders(tmp_path: Path) -> None:
    for split, names in (("train", "ab"), ("val", "c")):
        for name in names:
            write_picture(tmp_path / f"{split}/rgb/{name}_rgb.jpg", np.random.default_rng(0), SIZE)
            write_npy(tmp_path / f"{split}/metres/{name}.npy", np.full(SIZE, 2.5))
    described(
        tmp_path,
        "images: '{split}/rgb/*_rgb.jpg'\ntasks: {depth: {kind: depth, files: '{split}/metres/*.npy'}}",
    )
    train, val = opened(tmp_path), opened(tmp_path, split="val")
    assert [train[i].id for i in range(len(train))] == ["a", "b"]
    assert [val[i].id for i in range(len(val))] == ["c"]
    assert val[0].labels["depth"].eq(2.5).all()
    (tmp_path / "val/rgb/c_rgb.jpg").unlink()
    with pytest.raises(DataError, match=r"val/rgb: holds no picture \*_rgb.jpg, but nothing; add some"):
        opened(tmp_path, split="val")


def test_a_description_may_have_another_name(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "dataset.yaml").rename(tmp_path / "mine.yaml")
    assert len(opened(tmp_path, file="mine.yaml")) == 2
    with pytest.raises(DataError, match=r"dataset.yaml: no such file, but borders, depth, .*write one that names the"):
        opened(tmp_path)


def test_what_is_partial_may_be_missing_and_is_counted(tmp_path: Path) -> None:
    dataset = Folder(root=str(write_folder(tmp_path)))
    tasks = choose(dataset.tasks(), ["mask", "parts"])
    split = dataset.split("val", tasks)
    batch = collate([split[0], split[1]], tasks)
    assert batch.present["parts"].tolist() == [True, False]
    assert dataset.notes(tasks) == ["parts: 1 of 2 pictures of val have no file"]
    (tmp_path / "mask/c.png").unlink()
    with pytest.raises(DataError, match=r"1 of the files that lists/val.txt calls for are missing: mask/c.png"):
        dataset.split("val", tasks)
    (tmp_path / "lists/val.txt").unlink()
    assert dataset.notes(tasks) == []


def test_a_split_is_read_the_same_in_worker_processes(tmp_path: Path) -> None:
    dataset = Folder(root=str(write_folder(tmp_path)))
    assert_read_alike_in_workers(dataset, workers=1)


def test_unknown_splits_are_configuration_errors_and_a_root_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown split 'test'; expected train or val"):
        opened(write_folder(tmp_path), split="test")
    with pytest.raises(
        DataError, match=r"is not set; set dataset.root=DIR to a folder in which dataset.yaml says what"
    ):
        Folder().tasks()


BOMB = "a: &a [x, x]\nb: [*a, *a]\ntasks: {}"
BAD = {
    "nothing": ("", "holds NoneType; expected keys with values"),
    "a list": ("- tasks", "holds list; expected keys with values"),
    "no YAML": ("tasks: {", "cannot be read as YAML of plain values"),
    "not UTF-8": (b"tasks: \xff", "cannot be read as YAML of plain values"),
    "code": ("tasks: !!python/object/apply:os.system ['true']", "cannot be read as YAML of plain values"),
    "aliases": (BOMB, "line 1: an anchor or alias; write the value out"),
    "large": ("#" * 300_000, "300000 bytes; expected a description of at most"),
    "a key twice": ("tasks: {}\nimages: a/*.png\ntasks: {}", "line 3: 'tasks' stands twice; remove one"),
    "a task twice": ("tasks: {d: {kind: depth}, d: {kind: edges}}", "line 1: 'd' stands twice; remove one"),
    "deep": ("[" * 5000, "cannot be read as YAML of plain values"),
    "unknown key": ("taks: {}", "unknown key 'taks' (did you mean 'tasks'?); it may have tasks, images"),
    "no tasks": ("images: a/*.png", "tasks is missing; add the key 'tasks'"),
    "empty tasks": ("tasks: {}", "tasks is empty; name at least one"),
    "tasks of a list": ("tasks: [depth]", "expected dict[str, dict[str, typing.Any]]; mend the description"),
    "no kind": ("tasks: {d: {}}", "tasks.d.kind is None; expected one of segmentation, human_parts"),
    "unknown kind": ("tasks: {d: {kind: dept}}", "tasks.d.kind is 'dept'; expected one of * (did you mean 'depth'?)"),
    "unknown key of a task": (
        "tasks: {d: {kind: depth, scal: 1}}",
        "tasks.d: unknown key 'scal' (did you mean 'scale'?); it may have kind, files, partial, scale, ignore",
    ),
    "no classes": ("tasks: {s: {kind: segmentation}}", "tasks.s: classes is missing; add the key 'classes'"),
    "classes of another type": (
        "tasks: {s: {kind: segmentation, classes: 1.5}}",
        "tasks.s: classes=1.5: expected int or list[str]; mend the description",
    ),
    "no class": ("tasks: {s: {kind: segmentation, classes: 0}}", "tasks.s: task s: 0 channels; at least 1 is needed"),
    "a name of a task": ("tasks: {Depth: {kind: depth}}", "task name 'Depth': expected a lower-case word"),
    "no scale": ("tasks: {d: {kind: depth, scale: 0}}", "scale=0.0: expected a number above 0, metres for each unit"),
    "two axes alike": (
        "tasks: {n: {kind: normals, axes: [up, down, away]}}",
        "axes=['up', 'down', 'away']: expected where the three components point",
    ),
    "unknown axis": ("tasks: {n: {kind: normals, axes: [x, y, z]}}", "axes=['x', 'y', 'z']: expected where the three"),
    "outside": (
        "tasks: {d: {kind: depth, files: ../d/*.png}}",
        "tasks.d.files: '../d/*.png'; expected a pattern within",
    ),
    "absolute": (
        "images: /etc/*.png\ntasks: {d: {kind: depth}}",
        "images: '/etc/*.png'; expected a pattern within the",
    ),
    "no star": ("tasks: {d: {kind: depth, files: d/x.png}}", "tasks.d.files: 'd/x.png'; expected a pattern within"),
    "another ending": ("tasks: {d: {kind: depth, files: d/*.exr}}", "and .png or .npy at the end"),
    "unknown split": (
        "splits: {train: a, vall: b}\ntasks: {d: {kind: depth}}",
        "splits.val: expected a list of pictures for train and val",
    ),
    "list outside": (
        "splits: {train: a, val: ../b}\ntasks: {d: {kind: depth}}",
        "splits.val: '../b'; expected a file in the folder of the description",
    ),
    "no size": ("image_size: [0, 4]\ntasks: {d: {kind: depth}}", "image_size=[0, 4]: expected a height and a width"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_description_that_cannot_be_used_is_refused_with_file_and_key(tmp_path: Path, name: str) -> None:
    text, message = BAD[name]
    (tmp_path / "dataset.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError) as caught:
        Folder(root=str(tmp_path)).tasks()
    assert "dataset.yaml: " in str(caught.value)
    assert (
        all(part in str(caught.value) for part in message.split("*"))
        if "* (" in message
        else message in str(caught.value)
    )


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("labels/a.png", np.full(SIZE, 4, np.uint8), "found 4; expected a class from 1 to 3, or 0 where it is not"),
        ("labels/a.png", np.full(SIZE, 255, np.uint8), "found 255; expected a class from 1 to 3, or 0 where it is not"),
        ("labels/a.png", np.zeros(SIZE, np.uint8), "no pixel is annotated"),
        ("parts/a.npy", np.full(SIZE, 1.5), "found 1.5; expected a class from 0 to 6, or 255 or -1 where"),
        ("depth/a.png", np.full(SIZE, 9, np.uint8), "mode L; expected 16-bit greyscale"),
        ("disparity/a.npy", np.full(SIZE, -2), "found -2 "),
        ("normals/a.npy", np.full((*SIZE, 3), 2.0), "a component of size 2; expected unit normals"),
        ("borders/a.npy", np.full((12, 16), 1.0), "16 x 12 pixels (width x height)"),
    ],
)
def test_files_with_other_values_than_described_are_refused(
    tmp_path: Path, name: str, array: np.ndarray[Any, Any], message: str
) -> None:
    write = write_png if name.endswith(".png") else write_npy
    write(write_folder(tmp_path) / name, array)
    with pytest.raises(DataError) as caught:
        opened(tmp_path)[0]
    assert name in str(caught.value)
    assert message in str(caught.value)


def test_nan_in_a_mask_has_to_be_declared(tmp_path: Path) -> None:
    root = write_folder(tmp_path)
    described(root, FULL.replace("ignore: .nan", "ignore: []"))
    with pytest.raises(DataError, match=r"borders/a.npy: found nan; expected numbers, or `ignore: .nan` in the"):
        opened(root)[0]
