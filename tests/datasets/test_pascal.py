"""PASCAL: its tasks, what is read, which annotations a picture may lack, and what is said of damaged data sets."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import loadmat

from mt_core.dataset import Samples, choose, collate
from mt_core.errors import DataError
from mt_core.labels import NormalMap
from mt_datasets.context import NYU_CLASSES
from mt_datasets.pascal import CLASSES, PASCAL

from .layouts import rectangle, write_mat, write_parts, write_pascal, write_png

SIZE = (24, 32)
FIRST = "2008_000001"


def opened(root: Path, *names: str, split: str = "train") -> Samples:
    dataset = PASCAL(root=str(root))
    return dataset.split(split, choose(dataset.tasks(), names or None))


def test_it_has_five_tasks_with_the_channels_of_the_papers() -> None:
    tasks = PASCAL().tasks()
    assert {name: task.channels for name, task in tasks.items()} == {
        "semseg": 21, "human_parts": 7, "saliency": 1, "normals": 3, "edges": 1
    }  # fmt: skip
    assert tasks["semseg"].classes[15] == "person"
    assert tasks["human_parts"].classes[3] == "upper arms"


def test_every_annotation_is_read_in_its_type_and_the_size_of_the_picture(tmp_path: Path) -> None:
    dataset = PASCAL(root=str(write_pascal(tmp_path, SIZE)))
    sample = dataset.split("train", tuple(dataset.tasks().values()))[0]
    assert sample.image.shape == (3, *SIZE)
    assert list(sample.labels) == ["semseg", "human_parts", "saliency", "normals", "edges"]
    for name, label in sample.labels.items():
        assert type(label) is dataset.tasks()[name].label
        assert label.shape == (*label.planes, *SIZE)
        assert label.dtype == label.dtype_


@pytest.mark.parametrize(("index", "folder"), [(0, "pascal-context"), (1, "VOC12")])
def test_classes_are_palette_indices_from_whichever_folder_has_the_picture(
    tmp_path: Path, index: int, folder: str
) -> None:
    sample = opened(write_pascal(tmp_path, SIZE), "semseg")[index]
    stored = Image.open(tmp_path / f"semseg/{folder}/{sample.id}.png")
    assert stored.mode == "P"
    assert np.array_equal(sample.labels["semseg"].numpy(), np.array(stored))


def test_voc_annotations_come_before_context_ones(tmp_path: Path) -> None:
    write_pascal(tmp_path, SIZE)
    write_png(tmp_path / f"semseg/VOC12/{FIRST}.png", np.full(SIZE, 7, np.uint8), palette=True)
    assert opened(tmp_path, "semseg")[0].labels["semseg"].eq(7).all()


def test_what_stands_out_above_127_is_salient(tmp_path: Path) -> None:
    write_png(write_pascal(tmp_path, (1, 4)) / f"sal_distill/{FIRST}.png", np.array([[0, 127, 128, 255]], np.uint8))
    assert opened(tmp_path, "saliency")[0].labels["saliency"].tolist() == [[[0, 0, 1, 1]]]


def test_later_parts_are_painted_over_earlier_ones_and_over_all_people(tmp_path: Path) -> None:
    first = [("hair", rectangle(SIZE, 0, 10)), ("neck", rectangle(SIZE, 8, 12))]
    second = [
        ("rhand", rectangle(SIZE, 11, 14)),
        ("luleg", rectangle(SIZE, 14, 15)),
        ("rfoot", rectangle(SIZE, 15, 16)),
    ]
    dog = [("head", rectangle(SIZE, 0, 24))]
    path = write_pascal(tmp_path, SIZE) / f"human_parts/{FIRST}.mat"
    write_parts(path, [("person", 15, first), ("dog", 12, dog), ("person", 15, second), ("boat", 4, [])])
    column = opened(tmp_path, "human_parts")[0].labels["human_parts"][:, 5].tolist()
    assert column == [1] * 8 + [2] * 3 + [4] * 3 + [5] + [6] + [0] * 8


@pytest.mark.parametrize(
    "objects",
    [
        [],
        [("person", 15, [])],
        [("person", 15, [("head", rectangle(SIZE, 0, 0))])],
        [("dog", 12, [("head", rectangle(SIZE, 0, 5))])],
    ],
)
def test_a_picture_without_parts_of_people_has_no_such_annotation(tmp_path: Path, objects: list[Any]) -> None:
    dataset = PASCAL(root=str(write_pascal(tmp_path, SIZE)))
    write_parts(tmp_path / f"human_parts/{FIRST}.mat", objects)
    tasks = choose(dataset.tasks(), ["semseg", "human_parts"])
    sample = dataset.split("train", tasks)[0]
    assert list(sample.labels) == ["semseg"]
    assert (collate([sample], tasks).labels["human_parts"] == 255).all()


def test_normals_count_only_where_nyuv2_has_the_class_too(tmp_path: Path) -> None:
    write_pascal(tmp_path, SIZE)
    sample = opened(tmp_path, "normals")[0]
    label_map = loadmat(tmp_path / f"pascal-context/trainval/{FIRST}.mat")["LabelMap"]
    expected = np.isin(label_map, list(NYU_CLASSES))
    expected[0] = False  # not annotated in the file
    assert expected.any()
    assert not expected[1:].all()
    assert (NormalMap.valid(sample.labels["normals"]).numpy() == expected).all()


def test_a_picture_that_shows_nothing_of_nyuv2_has_no_normals(tmp_path: Path) -> None:
    write_pascal(tmp_path, SIZE)
    write_mat(tmp_path / f"pascal-context/trainval/{FIRST}.mat", LabelMap=np.full(SIZE, 360, np.uint16))  # sky
    assert opened(tmp_path, "normals")[0].labels == {}


def test_the_classes_of_both_data_sets_are_those_of_the_published_lists() -> None:
    assert len(NYU_CLASSES) == 170
    assert {158: "floor", 284: "person", 397: "table", 427: "tvmonitor", 440: "wall"}.items() <= NYU_CLASSES.items()
    assert not {"sky", "grass", "road", "horse", "unknown"} & set(NYU_CLASSES.values())


def test_classes_named_alike_agree_with_the_names_of_nyuv2(samples: Path) -> None:
    names = {str(name.item()) for name in loadmat(samples / "nyuv2/maps/classMapping40.mat")["allClassName"].flat}
    assert set(NYU_CLASSES.values()) - names == {"tvmonitor"}


def test_edges_run_along_the_borders_of_the_label_map_one_pixel_wide(tmp_path: Path) -> None:
    write_pascal(tmp_path, SIZE)
    label_map = np.full(SIZE, 158, np.uint16)
    label_map[:, 16:] = 440
    write_mat(tmp_path / f"pascal-context/trainval/{FIRST}.mat", LabelMap=label_map)
    edges = opened(tmp_path, "edges")[0].labels["edges"][0].as_subclass(torch.Tensor)
    assert edges[2:-2].sum(1).tolist() == [1] * 20
    assert set(edges[2:-2].nonzero()[:, 1].tolist()) <= {15, 16}


def test_a_split_survives_the_way_to_a_worker(tmp_path: Path) -> None:
    split = opened(write_pascal(tmp_path, SIZE))
    here, there = split[0], pickle.loads(pickle.dumps(split))[0]  # noqa: S301
    assert torch.equal(here.image, there.image)
    assert all(torch.equal(label, there.labels[name]) for name, label in here.labels.items())


def test_parts_need_no_list_of_parts_and_other_tasks_no_parts(tmp_path: Path) -> None:
    shutil.rmtree(write_pascal(tmp_path, SIZE) / "human_parts")
    assert list(opened(tmp_path, "semseg", "saliency")[0].labels) == ["semseg", "saliency"]
    with pytest.raises(DataError, match=r"no folder human_parts, .*tasks=\[semseg,saliency,normals,edges\]"):
        opened(tmp_path)


def test_normals_and_edges_share_the_label_maps(tmp_path: Path) -> None:
    shutil.rmtree(write_pascal(tmp_path, SIZE) / "pascal-context")
    with pytest.raises(DataError, match=r"no folder pascal-context/trainval, .*tasks=\[semseg,human_parts,saliency\]"):
        opened(tmp_path, "normals")


def test_either_folder_of_classes_will_do_but_one_must_have_the_picture(tmp_path: Path) -> None:
    shutil.rmtree(write_pascal(tmp_path, SIZE) / "semseg/VOC12")
    with pytest.raises(
        DataError,
        match=r"1 of .*: semseg/VOC12/2008_000002\.png or semseg/pascal-context/2008_000002\.png; restore them",
    ):
        opened(tmp_path, "semseg")


@pytest.mark.parametrize(("task", "file"), [("human_parts", "human_parts/{}.mat"), ("saliency", "sal_distill/{}.png")])
def test_a_picture_without_parts_or_saliency_trains_the_other_tasks(tmp_path: Path, task: str, file: str) -> None:
    dataset = PASCAL(root=str(write_pascal(tmp_path, SIZE, train=3)))
    (tmp_path / file.format(FIRST)).unlink()
    tasks = choose(dataset.tasks(), None)
    split = dataset.split("train", tasks)
    first, third = split[0], split[2]
    assert set(first.labels) == {"semseg", "human_parts", "saliency", "normals", "edges"} - {task}
    batch = collate([first, third], tasks)
    assert batch.present[task].tolist() == [False, True]
    assert (batch.labels[task][0] == 255).all()
    assert dataset.notes(tasks) == [f"{task}: 1 of 3 pictures of train have no file"]
    assert dataset.notes(choose(dataset.tasks(), ["semseg"])) == []


@pytest.mark.parametrize(("task", "folder"), [("human_parts", "human_parts"), ("saliency", "sal_distill")])
def test_a_task_without_any_annotation_is_refused(tmp_path: Path, task: str, folder: str) -> None:
    for path in (write_pascal(tmp_path, SIZE) / folder).iterdir():
        path.unlink()
    with pytest.raises(DataError, match=rf"none of the pictures that .* has an annotation of task {task}"):
        opened(tmp_path)
    assert "semseg" in opened(tmp_path, "semseg")[0].labels


PARTS_LISTS = {
    "classes of objects": f'{{"{FIRST}": [9, 15], "2008_000002": [12], "2008_000009": [15]}}',
    "names": f"{FIRST}\n2008_000009\n",
}


@pytest.mark.parametrize("text", PARTS_LISTS.values(), ids=PARTS_LISTS)
def test_parts_that_a_list_promises_have_to_be_there(tmp_path: Path, text: str) -> None:
    write_pascal(tmp_path, SIZE, train=3)
    (tmp_path / "ImageSets/Parts").mkdir()
    (tmp_path / "ImageSets/Parts/train.txt").write_text(text)
    (tmp_path / "human_parts/2008_000002.mat").unlink()
    assert [len(opened(tmp_path)[index].labels) for index in (0, 2)] == [5, 5]
    (tmp_path / f"human_parts/{FIRST}.mat").unlink()
    with pytest.raises(DataError, match=rf"Parts/train.txt promises 1 files of task .*: human_parts/{FIRST}"):
        opened(tmp_path)
    assert "semseg" in opened(tmp_path, "semseg")[0].labels


@pytest.mark.parametrize("text", ["{", '{"a": 15}'])
def test_a_damaged_list_of_parts_is_refused(tmp_path: Path, text: str) -> None:
    (write_pascal(tmp_path, SIZE) / "ImageSets/Parts").mkdir()
    (tmp_path / "ImageSets/Parts/train.txt").write_text(text)
    with pytest.raises(DataError, match=r"Parts/train.txt: cannot be read as the pictures with parts"):
        opened(tmp_path)


def test_the_lists_of_the_real_sample_promise_what_is_there(samples: Path) -> None:
    dataset = PASCAL(root=str(samples / "pascal" / "PASCAL_MT"))
    tasks = choose(dataset.tasks(), ["human_parts", "saliency"])
    assert [len(dataset.split(name, tasks)) for name in ("train", "val")] == [16, 6]
    assert dataset.notes(tasks) == []


def test_without_a_folder_it_says_which_option_to_set_and_what_is_expected_there() -> None:
    with pytest.raises(
        DataError, match=r"is not set; set dataset.root=DIR .*PASCAL_MT: ImageSets/Context/\*.txt, JPEG"
    ):
        PASCAL().split("train", [])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def parts(path: Path, *masks: tuple[str, tuple[int, int]]) -> None:
    write_parts(path, [("person", 15, [(name, np.ones(size, np.uint8))]) for name, size in masks])


Damage = Callable[[Path], object]
DAMAGE: dict[str, tuple[str, Damage, str]] = {
    "truncated picture": (f"JPEGImages/{FIRST}.jpg", cut, "cannot be read as a JPEG"),
    "truncated classes": (f"semseg/pascal-context/{FIRST}.png", cut, "cannot be read as a PNG of class indices"),
    "class out of range": (
        f"semseg/pascal-context/{FIRST}.png",
        lambda path: write_png(path, np.full(SIZE, len(CLASSES), np.uint8)),
        "found 21 ",
    ),
    "void classes": (
        f"semseg/pascal-context/{FIRST}.png",
        lambda path: write_png(path, np.full(SIZE, 255, np.uint8)),
        "no pixel is annotated",
    ),
    "truncated parts": (f"human_parts/{FIRST}.mat", cut, "cannot be read as a MATLAB file"),
    "parts in another form": (
        f"human_parts/{FIRST}.mat",
        lambda path: write_mat(path, anno=np.zeros(3)),
        "cannot be read as PASCAL-Part's struct `anno`",
    ),
    "unknown part": (f"human_parts/{FIRST}.mat", lambda path: parts(path, ("wing", SIZE)), "a part 'wing'; expected"),
    "parts of two sizes": (
        f"human_parts/{FIRST}.mat",
        lambda path: parts(path, ("head", SIZE), ("torso", SIZE[::-1])),
        "masks of (24, 32) and (32, 24)",
    ),
    "wrong size": (
        f"human_parts/{FIRST}.mat",
        lambda path: parts(path, ("head", SIZE[::-1])),
        f"24 x 32 pixels (width x height), but the picture {FIRST} has 32 x 24",
    ),
    "truncated saliency": (f"sal_distill/{FIRST}.png", cut, "cannot be read as a greyscale PNG"),
    "normals of grey": (
        f"normals_distill/{FIRST}.png",
        lambda path: write_png(path, np.zeros(SIZE, np.uint8)),
        "mode L; expected 8-bit RGB",
    ),
    "void normals": (
        f"normals_distill/{FIRST}.png",
        lambda path: write_png(path, np.full((*SIZE, 3), 128, np.uint8)),
        "no pixel is annotated",
    ),
    "normals of another size": (
        f"normals_distill/{FIRST}.png",
        lambda path: write_png(path, np.full((32, 24, 3), 128, np.uint8)),
        "LabelMap of (24, 32), but",
    ),
    "label map missing": (
        f"pascal-context/trainval/{FIRST}.mat",
        lambda path: write_mat(path, other=1),
        "holds no variable 'LabelMap'",
    ),
    "label map out of range": (
        f"pascal-context/trainval/{FIRST}.mat",
        lambda path: write_mat(path, LabelMap=np.full(SIZE, 460, np.uint16)),
        "expected (H, W) of 0..459",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_refused_when_it_is_read(tmp_path: Path, damage: str) -> None:
    name, spoil, message = DAMAGE[damage]
    spoil(write_pascal(tmp_path, SIZE) / name)
    split = opened(tmp_path)
    assert split[1].id == "2008_000002"
    with pytest.raises(DataError) as caught:
        split[0]
    assert name in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", [f"JPEGImages/{FIRST}.jpg", f"normals_distill/{FIRST}.png"])
def test_a_missing_file_is_named_before_a_picture_is_read(tmp_path: Path, name: str) -> None:
    (write_pascal(tmp_path, SIZE) / name).unlink()
    with pytest.raises(DataError, match=f"1 of the files that .*train.txt calls for are missing: {name}"):
        opened(tmp_path)


def test_parts_with_flipped_bytes_are_read_or_refused_but_never_crash(tmp_path: Path) -> None:
    path = write_pascal(tmp_path, SIZE) / f"human_parts/{FIRST}.mat"
    write_mat(path, **{name: value for name, value in loadmat(path).items() if name == "anno"})
    split = opened(tmp_path, "human_parts")
    content, rng, refused = path.read_bytes(), np.random.default_rng(0), []
    for _ in range(60):
        damaged = bytearray(content)
        for place in rng.integers(128, len(content), 4):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            split[0]
        except DataError as error:
            refused.append(str(error))
    assert len(refused) > 10
    assert all(path.name in message for message in refused)


def test_real_pictures_show_people_where_the_parts_are(samples: Path) -> None:
    root = samples / "pascal" / "PASCAL_MT"
    wanted = ("semseg", "human_parts", "saliency", "edges")
    pictures = [
        split[index]
        for split in (opened(root, *wanted), opened(root, *wanted, split="val"))
        for index in range(len(split))
    ]
    people = [picture.labels for picture in pictures if "human_parts" in picture.labels]
    assert len(pictures) == 22
    assert len(people) == 12
    seen = torch.cat([labels["human_parts"].flatten() for labels in people])
    assert seen.unique().tolist() == [0, 1, 2, 3, 4, 5, 6]
    agreeing = [(labels["semseg"][labels["human_parts"] > 0] == 15).float().mean().item() for labels in people]
    assert sorted(agreeing)[1] > 0.75  # one picture's two sources disagree on who is a person


def test_the_real_sample_lacks_normals_and_says_what_to_train_instead(samples: Path) -> None:
    with pytest.raises(DataError, match=r"no folder normals_distill.*tasks=\[semseg,human_parts,saliency,edges\]"):
        opened(samples / "pascal" / "PASCAL_MT")
