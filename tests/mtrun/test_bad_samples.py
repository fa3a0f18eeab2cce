"""Pictures that cannot be used: a run stops, or goes on as though they were not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mt_core.augment import training_transform
from mt_core.dataset import Sample, collate
from mt_core.errors import DataError
from mtrun.data import Prepared, Unusable, evaluation_batches, note_skipped, open_samples
from mtrun.recipe import OnBadSample, RunningOptions

from ..datasets.layouts import write_nyud
from .conftest import TINY, Mtrun
from .toy import Toy

TASKS = tuple(Toy().tasks().values())
TRANSFORM = training_transform((32, 40), zoom=(1.0, 1.5), rotation=10.0, jitter=0.2)
SKIP = RunningOptions(batch_size=4, workers=0, on_bad_sample=OnBadSample.skip)


def prepared(seed: int = 0) -> Prepared:
    return Prepared(Toy(broken=1).split("train", TASKS), TRANSFORM, seed, OnBadSample.skip)


def test_what_stands_in_is_black_without_annotations_and_follows_from_the_picture_alone() -> None:
    found = [prepared(seed)[place, 1] for seed, place in ((0, 0), (0, 7), (5, 3))]
    for item in found:
        assert isinstance(item, Unusable)
        assert (item.id, item.reason, item.labels) == ("picture-1", "toy-1: damaged; draw it again", {})
        assert item.image.shape == (3, 32, 40)
        assert not item.image.any()
    assert isinstance(prepared()[0, 2], Sample)
    assert not isinstance(prepared()[0, 2], Unusable)


def test_a_skipped_picture_changes_no_loss() -> None:
    items = [prepared()[place, index] for place, index in enumerate((0, 1, 2))]
    samples = [item for item in items if isinstance(item, Sample)]
    with_it, without = collate(samples, TASKS), collate([samples[0], samples[2]], TASKS)
    for task in TASKS:
        logits = torch.randn(3, task.channels, 32, 40)
        loss = task.loss(logits, with_it.labels[task.name])
        torch.testing.assert_close(loss, task.loss(logits[[0, 2]], without.labels[task.name]))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_says_which_pictures_were_skipped_and_why(workers: int) -> None:
    options = RunningOptions(batch_size=4, workers=workers, on_bad_sample=OnBadSample.skip)
    samples = Toy(broken=1).split("train", TASKS)
    first, second = evaluation_batches(samples, TRANSFORM, TASKS, options, torch.device("cpu"))
    assert first.ids == ["toy-0", "picture-1", "toy-2", "toy-3"]
    assert first.to(torch.device("cpu")).skipped == {"picture-1": "toy-1: damaged; draw it again"}
    assert second.skipped == {}
    assert all(present.tolist() == [True, False, True, True] for present in first.present.values())


def test_a_picture_counts_once_and_one_too_many_stops(caplog: pytest.LogCaptureFixture) -> None:
    options = RunningOptions(on_bad_sample=OnBadSample.skip, max_bad_samples=1)
    known: dict[str, str] = {}
    for _ in range(3):
        note_skipped(known, {"a": "a.png: cut off"}, "train", options)
    assert len(caplog.records) == 1
    for _ in range(2):  # nor does the second attempt of a resumed run pass
        with pytest.raises(DataError, match=r"b\.png: cut off\. Picture b of split train cannot be used, and 1 were"):
            note_skipped(known, {"b": "b.png: cut off"}, "train", options)
    assert known == {"a": "a.png: cut off"}


def test_pictures_without_files_are_skipped_too_but_not_too_many(tmp_path: Path) -> None:
    from mt_core.discovery import registry

    dataset = registry("datasets")["nyud"](root=str(write_nyud(tmp_path, (8, 8), train=4)))
    (tmp_path / "depth/0002.npy").unlink()
    (tmp_path / "edge/0002.npy").unlink()
    tasks = tuple(dataset.tasks().values())
    assert len(open_samples(dataset, "train", tasks, SKIP)) == 4
    with pytest.raises(DataError, match=r"2 of the files that gt_sets/train\.txt calls for are missing"):
        open_samples(dataset, "train", tasks, RunningOptions())
    with pytest.raises(DataError, match="Picture 0002 of split train cannot be used"):
        open_samples(dataset, "train", tasks, RunningOptions(on_bad_sample=OnBadSample.skip, max_bad_samples=0))
    (tmp_path / "gt_sets/train.txt").write_text("0001\n0001\n")
    with pytest.raises(DataError, match="'0001' stands twice"):
        open_samples(dataset, "train", tasks, SKIP)


def test_a_run_skips_and_says_so_in_its_result_and_goes_on_counting(mtrun: Mtrun) -> None:
    words = (*TINY, "dataset.broken=1", "trainer.max_steps=4", "trainer.save_every=2", "run_dir=run")
    refused = mtrun(*words)
    assert refused.code == 3
    assert "toy-1: damaged; draw it again" in refused.err
    outcome = mtrun(*words, "trainer.on_bad_sample=skip", "run_dir=other")
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("Picture picture-1 of split train is skipped, as number 1") == 1
    result = json.loads(Path("other/result.json").read_text())
    assert result["skipped_pictures"] == {"train": ["picture-1"], "val": []}
    more = mtrun("resume=other", "trainer.max_steps=6", "--json")
    assert more.code == 0, more.err
    assert more.json["skipped_pictures"]["train"] == ["picture-1"]
    assert "is skipped, as number" not in more.err
    assert mtrun(*words, "trainer.on_bad_sample=skip", "trainer.max_bad_samples=0", "run_dir=third").code == 3


def test_an_evaluation_leaves_them_out(mtrun: Mtrun, tmp_path: Path) -> None:
    write_nyud(tmp_path / "data", (32, 40), train=2, val=3)
    data = ("dataset=nyud", "dataset.root=data", "tasks=[semseg,depth]", "image_size=[32,40]")
    assert mtrun(*TINY, *data, "trainer.max_steps=1", "trainer.eval_before=false", "run_dir=run").code == 0
    whole = mtrun("eval", "checkpoint=run", "--json").json
    assert (whole["images"], whole["skipped_pictures"]) == (3, [])
    (tmp_path / "data/depth/0004.npy").write_bytes(b"")
    assert mtrun("eval", "checkpoint=run").code == 3
    skipped = mtrun("eval", "checkpoint=run", "trainer.on_bad_sample=skip", "--json").json
    assert (skipped["images"], skipped["skipped_pictures"]) == (2, ["0004"])
    (tmp_path / "data/gt_sets/val.txt").write_text("0003\n0005\n")
    without = mtrun("eval", "checkpoint=run", "--json").json["metrics"]
    for task, metrics in skipped["metrics"].items():
        assert without[task] == pytest.approx(metrics, rel=1e-6)  # other batches, other rounding
