"""Every kind of damage to a data set: verify finds it and names the file; training refuses or skips, as it is told."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import DataObject, data, sampled_from

from mt_core.augment import evaluation_transform
from mt_core.dataset import SPLITS, Dataset
from mt_core.discovery import registry
from mt_core.errors import DataError
from mt_datasets.cityscapes import DepthForm
from mtrun.data import evaluation_batches, note_skipped, open_samples
from mtrun.recipe import OnBadSample, RunningOptions
from mtrun.verification import verify

from ..datasets.layouts import write_cityscapes, write_mtan, write_npy, write_nyu_official, write_nyud, write_pascal
from ..datasets.test_folder import write_folder
from .damage import DAMAGE, SIZE, Damage

TRANSFORM = evaluation_transform((16, 24))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Undamaged data sets, by name."""
    folder = tmp_path_factory.mktemp("whole")
    return {
        "nyud": write_nyud(folder / "nyud", SIZE, train=3, val=2),
        "pascal": whole_pascal(folder / "pascal"),
        "nyuv2": write_mtan(folder / "nyuv2", SIZE, train=3, val=2),
        "cityscapes": write_mtan(folder / "cityscapes", SIZE, 3, 2, labels={"label_7": 7}, normals=False),
        "nyuv2 official": whole_nyu_official(folder / "nyuv2-official"),
        "cityscapes official": write_cityscapes(folder / "cityscapes-official", SIZE, train=3, val=2),
        "folder": whole_folder(folder / "folder"),
    }


def whole_pascal(root: Path) -> Path:
    """With the lists of pictures that have parts."""
    write_pascal(root, SIZE, train=3, val=2)
    (root / "ImageSets/Parts").mkdir()
    (root / "ImageSets/Parts/train.txt").write_text('{"2008_000001": [15], "2008_000002": [12]}')
    (root / "ImageSets/Parts/val.txt").write_text("2008_000005\n")
    return root


def whole_nyu_official(root: Path) -> Path:
    """With normals of its own."""
    write_nyu_official(root, SIZE, train=(2, 3, 4))
    for number in range(1, 6):
        write_npy(root / f"normals/{number:04}.npy", np.broadcast_to(np.float32([0, 0, 1]), (*SIZE, 3)))
    return root


def whole_folder(root: Path) -> Path:
    """One picture has no parts, and no picture is in both splits."""
    write_folder(root)
    (root / "lists/train.txt").write_text("a\nc\n")
    (root / "lists/val.txt").write_text("b\n")
    return root


def opened(name: str, root: Path) -> Dataset:
    options = {"depth": DepthForm.metres} if name == "cityscapes official" else {}
    dataset: Dataset = registry("datasets")[name.split(" ")[0]](root=str(root), **options)
    return dataset


def read_all(dataset: Dataset, on_bad_sample: OnBadSample, limit: int = 10) -> dict[str, str]:
    """What training and evaluation read, through the same pipeline; the pictures that are skipped."""
    tasks, skipped = tuple(dataset.tasks().values()), dict[str, str]()
    options = RunningOptions(batch_size=2, workers=0, on_bad_sample=on_bad_sample, max_bad_samples=limit)
    for split in SPLITS:
        samples = open_samples(dataset, split, tasks, options)
        with closing(evaluation_batches(samples, TRANSFORM, tasks, options, torch.device("cpu"))) as batches:
            for batch in batches:
                skipped |= batch.skipped
                for name in batch.skipped:
                    assert not any(present[batch.ids.index(name)] for present in batch.present.values())
    return skipped


def test_there_are_more_than_forty_kinds() -> None:
    assert len(DAMAGE) > 40


COUNTS = {"nyuv2 official": [3, 2], "cityscapes official": [3, 2], "folder": [2, 1]}


@pytest.mark.parametrize("name", ["nyud", "pascal", "nyuv2", "cityscapes", *COUNTS])
def test_nothing_is_found_in_a_data_set_that_is_whole(name: str, whole: Mapping[str, Path]) -> None:
    dataset = opened(name, whole[name])
    found = verify(dataset, tuple(dataset.tasks().values()), SPLITS, workers=0)
    assert [problem for verified in found for problem in verified.problems] == []
    assert [verified.looked_at for verified in found] == COUNTS.get(name, [3, 2])
    assert read_all(dataset, OnBadSample.stop) == {}


@pytest.mark.parametrize("kind", DAMAGE)
@given(data=data())
@settings(max_examples=2, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
def test_damage_is_found_and_refused_or_skipped(
    kind: str, whole: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory, data: DataObject
) -> None:
    damage = DAMAGE[kind]
    root = tmp_path_factory.mktemp("damaged") / "root"
    shutil.copytree(whole[damage.dataset], root)
    file = data.draw(sampled_from(sorted(path for pattern in damage.files for path in root.glob(pattern))))
    damage.spoil(file, data)
    try:
        check(damage, opened(damage.dataset, root), file)
    finally:
        shutil.rmtree(root)


def check(damage: Damage, dataset: Dataset, file: Path) -> None:
    found = verify(dataset, tuple(dataset.tasks().values()), SPLITS, workers=0)
    errors = [problem for verified in found for problem in verified.problems if problem.is_error]
    assert errors
    wanted = file.stem if damage.trains or damage.whole else file.name  # a picture, a list or a folder
    assert any(wanted in problem.message or str(file) == problem.file for problem in errors), errors
    if damage.trains:
        return
    with pytest.raises(DataError) as refused:
        read_all(dataset, OnBadSample.stop)
    if damage.whole:
        with pytest.raises(DataError) as refused_again:
            read_all(dataset, OnBadSample.skip)
        assert str(refused_again.value) == str(refused.value)
        return
    skipped = read_all(dataset, OnBadSample.skip)
    assert len(skipped) == 1
    assert skipped.keys() == {problem.id for problem in errors}
    with pytest.raises(DataError, match=r"trainer\.max_bad_samples=0 allows; mend the data set"):
        note_skipped({}, skipped, "train", RunningOptions(max_bad_samples=0))
