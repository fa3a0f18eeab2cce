"""`mtrun data`: verify, prepare and show, as a user calls them."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torchvision import tv_tensors

from mt_core.dataset import Dataset, Sample, Samples, Source
from mt_core.errors import DataError
from mt_core.hookspecs import hookimpl
from mt_core.labels import ClassMap, DepthMap
from mt_core.task import Task
from mt_core.tasks import Depth, Segmentation
from mtrun import terminal
from mtrun.verification import verify

from ..datasets.layouts import write_mtan, write_npy, write_nyud
from .conftest import Mtrun, plugin

SIZE = (24, 32)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_nyud(tmp_path / "data", SIZE)


def test_a_whole_data_set_is_verified_and_a_report_says_what_is_in_it(mtrun: Mtrun, root: Path) -> None:
    outcome = mtrun("data", "verify", "nyud", "dataset.root=data", "output=report", "--json")
    assert outcome.code == 0
    written = json.loads(Path("report/report.json").read_text())
    assert {**written, "report": "report/report.json"} == outcome.json
    assert (written["ok"], written["errors"], written["problems"]) == (True, 0, [])
    train = written["splits"]["train"]
    assert (train["listed"], train["looked_at"], train["unusable"], train["sizes"]) == (2, 2, 0, {"32 x 24": 2})
    stored = [np.load(root / f"depth/{name}.npy") for name in ("0001", "0002")]
    known = np.concatenate([depth[depth > 0] for depth in stored])
    depth = train["tasks"]["depth"]
    assert depth["void"] == pytest.approx(1 - known.size / sum(depth.size for depth in stored))
    assert depth["range"]["min"] == pytest.approx(known.min())
    assert depth["range"]["max"] == pytest.approx(known.max())
    assert depth["range"]["mean"] == pytest.approx(known.mean(), rel=1e-6)
    classes = np.concatenate([np.array(Image.open(root / f"segmentation/{n}.png")).ravel() for n in ("0001", "0002")])
    shares = train["tasks"]["semseg"]["classes"]
    assert sum(shares.values()) == pytest.approx(1)
    assert list(shares.values()) == pytest.approx([(classes == i + 1).sum() / (classes > 0).sum() for i in range(40)])
    text = Path("report/report.txt").read_text()
    assert "split train: 2 pictures, 2 looked at, 0 unusable; 32 x 24 (2)" in text
    assert "nothing is wrong, 0 warnings" in text


def test_everything_that_is_wrong_is_listed_and_the_exit_code_is_3(mtrun: Mtrun, root: Path) -> None:
    (root / "images/0001.jpg").write_bytes(b"")
    write_npy(root / "depth/0001.npy", np.full(SIZE, np.nan))
    (root / "edge/0001.npy").unlink()
    write_npy(root / "depth/0003.npy", np.ones(SIZE, np.int16))
    outcome = mtrun("data", "verify", "dataset=nyud", "dataset.root=data", "workers=2")
    assert outcome.code == 3
    assert "data/images/0001.jpg: cannot be read as a JPEG picture" in outcome.out
    assert "data/edge/0001.npy: no such file, which the picture 0001 of gt_sets/train.txt needs" in outcome.out
    assert "data/depth/0003.npy: depth as int16" in outcome.out
    assert "the report is in runs/verify-nyud-" in outcome.out
    (report,) = Path("runs").glob("verify-nyud-*/report.json")
    problems = json.loads(report.read_text())["problems"]
    assert {(problem["id"], problem["task"], problem["file"]) for problem in problems} == {
        ("0001", None, "data/images/0001.jpg"),
        ("0001", "edges", "data/edge/0001.npy"),
        ("0003", "depth", "data/depth/0003.npy"),
    }


def test_one_broken_annotation_hides_no_other(mtrun: Mtrun, root: Path) -> None:
    write_npy(root / "depth/0001.npy", np.full(SIZE, np.nan))
    (root / "segmentation/0001.png").write_bytes(b"")
    write_npy(root / "edge/0001.npy", np.full(SIZE, 7))
    found = mtrun("data", "verify", "nyud", "dataset.root=data", "dry_run=true", "--json").json
    assert [problem["task"] for problem in found["problems"]] == ["semseg", "depth", "edges"]
    assert found["splits"]["train"]["unusable"] == 1
    assert found["report"] is None
    assert not Path("runs").exists()


def test_a_disk_that_is_full_at_the_end_is_said(mtrun: Mtrun, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mtrun.verbs.data_verify.write_json", full)
    outcome = mtrun("data", "verify", "nyud", "dataset.root=data", "output=report")
    assert outcome.code == 2
    assert "output=report: the report cannot be written (No space left on device); make room" in outcome.err


def test_only_the_tasks_splits_and_pictures_asked_for_are_looked_at(mtrun: Mtrun, root: Path) -> None:
    write_npy(root / "depth/0002.npy", np.full(SIZE, np.nan))
    words = ("data", "verify", "nyud", "dataset.root=data", "dry_run=true")
    assert mtrun(*words).code == 3
    assert mtrun(*words, "tasks=[semseg,edges]").code == 0
    assert mtrun(*words, "splits=[val]").code == 0
    assert mtrun(*words, "pictures=1").code == 0


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("data",), 2, "mtrun data needs an action: one of verify, prepare, show"),
        (("data", "verfiy"), 2, "unknown action of mtrun data 'verfiy'; did you mean 'verify'?"),
        (("data", "verify", "nyudd"), 2, "Did you mean 'nyud'?"),
        (("data", "verify", "nyud", "dataset=pascal"), 2, "two names; leave one of them away"),
        (("data", "verify", "nyud", "splits=[train,train]"), 2, "expected names of splits, each once"),
        (("data", "verify", "nyud", "splits=[test]", "dataset.root=data"), 2, "unknown split 'test'"),
        (("data", "verify", "nyud", "pictures=0"), 2, "pictures=0: expected at least 1"),
        (("data", "verify", "nyud", "taks=[depth]"), 2, "mtrun data verify has no option 'taks'; did you mean tasks?"),
        (("data", "verify", "nyud", "output=data/images/0001.jpg"), 2, "no report can be written there"),
        (("data", "verify", "nyud", "dataset.root=nowhere"), 3, "nowhere is no folder; set dataset.root=DIR"),
        (("data", "show", "nyud", "split=test", "dataset.root=data"), 2, "nothing to show of it"),
        (("data", "show", "nyud", "count=0"), 2, "expected 1 to 64 pictures"),
        (("data", "show", "nyud", "seed=-1"), 2, "seed=-1: expected a whole number from 0 on, or null"),
        (("data", "show", "nyud", "dataset.root=data", "output=data/images/0001.jpg/x.png"), 2, "cannot be drawn to"),
        (("data", "show", "nyud", "dataset.root=nowhere"), 3, "nowhere is no folder"),
        (("data", "prepare", "rooms"), 2, "has no files, so there is nothing to prepare"),
        (("data", "prepare", "nyud", "archives=[a.tgz]"), 2, "dataset.root is needed: the folder"),
        (("data", "prepare", "nyud", "dataset.root=new"), 2, "and archives is empty; give archives=[FILE,...]"),
        (("data", "prepare", "nyud", "dataset.root=new", "archives=[a.tgz]"), 3, "a.tgz: no such archive"),
        (("data", "prepare", "nyud", "dataset.root=runs", "archives=[a.tgz]"), 2, "is there already, but nyud cannot"),
        (
            ("data", "prepare", "nyud", "dataset.root=data/images/0001.jpg/x", "archives=[a]"),
            2,
            "no folder can be made there",
        ),
    ],
)
def test_what_cannot_be_done_is_said(mtrun: Mtrun, root: Path, words: tuple[str, ...], code: int, message: str) -> None:
    Path("runs/other").mkdir(parents=True)
    outcome = mtrun(*words)
    assert outcome.code == code
    assert message in outcome.err + outcome.out
    assert not Path("new").exists()


def test_help_tells_every_option_of_every_action(mtrun: Mtrun) -> None:
    text = mtrun("data", "--help").out
    for word in ("verify|prepare|show", "splits=[train,val]", "archives=[]", "augment=false", "dataset=", "nyud"):
        assert word in text
    assert "count=4" not in mtrun("data", "verify", "--help").out
    assert "mtrun data verify nyud dataset.root=DIR" in mtrun("--help").out


def test_a_terminal_gets_a_bar(mtrun: Mtrun, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "console", lambda stream: Console(file=stream, force_terminal=True, width=120))
    outcome = mtrun("data", "verify", "nyud", "dataset.root=data", "dry_run=true")
    assert outcome.code == 0
    assert "verifying train" in outcome.err


# ---- other data sets, through the contract alone


def image_of(value: int) -> tv_tensors.Image:
    return tv_tensors.Image(torch.randint(0, 255, (3, 8, 8), generator=torch.Generator().manual_seed(value)).byte())


@dataclass(frozen=True)
class Odd:
    """Samples that break the contract, one way each."""

    samples: tuple[Any, ...]
    tasks: tuple[Task, ...]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int, /) -> Sample:
        found: Sample | Exception = self.samples[index]
        if isinstance(found, Exception):
            raise found
        return replace(found, labels={t.name: found.labels[t.name] for t in self.tasks if t.name in found.labels})


@dataclass(kw_only=True)
class OddSet(Dataset):
    """A stranger's data set, without files that it could name."""

    samples: tuple[Any, ...] = ()
    image_size = (8, 8)

    def tasks(self) -> Mapping[str, Task]:
        return {"semseg": Segmentation("semseg", 3), "depth": Depth("depth")}

    def split(self, name: str, tasks: Sequence[Task]) -> Samples:
        if name == "val":
            raise RuntimeError("no such table")
        return Odd(self.samples, tuple(tasks))


def problems_of(*samples: Any) -> list[tuple[str, str, bool]]:
    dataset = OddSet(samples=samples)
    (found,) = verify(dataset, tuple(dataset.tasks().values()), ["train"], workers=0)
    return [(problem.id, problem.message, problem.is_error) for problem in found.problems]


CLASSES, METRES = ClassMap(torch.ones(8, 8)), DepthMap(torch.ones(1, 8, 8))


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (ValueError("page 3 is torn"), "picture-0: ValueError: page 3 is torn"),
        (DataError("table: row 3 is damaged"), "table: row 3 is damaged"),
        (Sample("a", tv_tensors.Image(torch.zeros(3, 8, 8))), "a: a picture of torch.float32 and shape (3, 8, 8)"),
        (Sample("a", image_of(0)[:1]), "a: a picture of torch.uint8 and shape (1, 8, 8); expected (3, H, W) uint8"),
        (Sample("a/b", image_of(0)), "a/b: the id 'a/b' cannot be the name of a file"),
        (Sample("a", image_of(0), {"depth": CLASSES}), "a: the label of task depth is a ClassMap; expected a DepthMap"),
        (
            Sample("a", image_of(0), {"semseg": ClassMap(torch.ones(8, 9))}),
            "a: the label of task semseg is (8, 9) torch.int64; for this picture expected (8, 8) torch.int64",
        ),
        (
            Sample("a", image_of(0), {"semseg": ClassMap(torch.full((8, 8), 7))}),
            "a: task semseg: found 7 at row 0, column 0",
        ),
        (
            Sample("a", image_of(0), {"depth": DepthMap(torch.zeros(1, 8, 8))}),
            "a: no pixel is annotated (all void) for task depth",
        ),
    ],
)
def test_what_breaks_the_contract_is_found_in_any_data_set(sample: Any, message: str) -> None:
    found = problems_of(sample, Sample("b", image_of(1), {"semseg": CLASSES, "depth": METRES}))
    assert len(found) == 1
    assert message in found[0][1]
    assert found[0][2]


def test_what_only_looks_wrong_is_a_warning() -> None:
    flat = Sample("a", tv_tensors.Image(torch.full((3, 8, 8), 9, dtype=torch.uint8)), {"semseg": CLASSES})
    far = Sample("b", image_of(1), {"depth": DepthMap(torch.full((1, 8, 8), 2300.0))})
    twin = Sample("c", image_of(1))
    found = problems_of(flat, far, twin)
    assert [is_error for _, _, is_error in found] == [False] * 3
    assert "the whole picture has one colour" in found[0][1]
    assert "half of the depth is above 100 metres; is it in millimetres?" in found[1][1]
    assert "c: the same picture as b of split train; look at both" in found[2][1]


def test_an_id_that_stands_twice_is_an_error() -> None:
    found = problems_of(Sample("a", image_of(0)), Sample("a", image_of(1)))
    assert found == [("a", "a: another picture of split train has the id 'a' too; rename one of them", True)]


def test_a_split_that_fails_or_is_empty_is_a_problem() -> None:
    dataset = OddSet(samples=())
    found = verify(dataset, tuple(dataset.tasks().values()), ["train", "val"], workers=0)
    messages = [problem.message for verified in found for problem in verified.problems]
    assert messages == ["split 'train' has no picture; add some", "split val: RuntimeError: no such table"]


class Killer(Odd):
    """Ends the process that reads it."""

    def __getitem__(self, index: int, /) -> Sample:
        os._exit(1)


def test_a_process_that_is_killed_is_told_of() -> None:
    dataset = OddSet()
    dataset.split = lambda name, tasks: Killer((0, 0), tuple(tasks))  # type: ignore[method-assign]
    with pytest.raises(DataError, match="a process that reads pictures was killed"):
        verify(dataset, (), ["train"], workers=1)


def test_numbers_do_not_depend_on_the_number_of_processes(root: Path) -> None:
    from mt_core.discovery import registry

    (root / "depth/0001.npy").write_bytes(b"")
    dataset = registry("datasets")["nyud"](root=str(root))
    one, two = (verify(dataset, tuple(dataset.tasks().values()), ["train"], workers=n)[0] for n in (0, 1))
    assert one.to_json() == two.to_json()
    assert one.problems == two.problems


# ---- prepare


def tgz(path: Path, folder: Path, inside: str) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder, inside)
    return path


def test_prepare_says_where_the_files_are_published_and_under_which_terms(mtrun: Mtrun) -> None:
    for name, word in (("nyud", "NYUD_MT.tgz"), ("pascal", "flickr"), ("cityscapes", "cityscapes-dataset.com/license")):
        outcome = mtrun("data", "prepare", name)
        assert outcome.code == 0
        assert word in outcome.out
        assert "is not downloaded by mtrun" in outcome.out
    sources = mtrun("data", "prepare", "nyuv2", "--json").json["sources"]
    assert [source["files"] for source in sources] == [
        ["nyu_depth_v2_labeled.mat", "splits.mat"],
        ["nyuv2.zip"],
        ["NYUD_MT.tgz"],
    ]
    assert all(Source(**source).terms for source in sources)


@pytest.mark.parametrize("inside", [".", "NYUD_MT", "a/b"])
def test_an_archive_becomes_a_folder_that_can_be_opened(mtrun: Mtrun, root: Path, inside: str) -> None:
    tgz(Path("x.tgz"), root, inside)
    words = ("data", "prepare", "nyud", "archives=[x.tgz]", "dataset.root=made/nyud")
    outcome = mtrun(*words)
    assert outcome.code == 0, outcome.err
    assert "nyud is in made/nyud" in outcome.out
    assert sorted(path.name for path in Path("made").iterdir()) == ["nyud"]
    assert Path("made/nyud").stat().st_mode & 0o777 == 0o755
    assert mtrun("data", "verify", "nyud", "dataset.root=made/nyud", "dry_run=true").code == 0
    again = mtrun(*words, "--json")
    assert again.code == 0
    assert again.json == {"root": "made/nyud", "missing": {}}
    assert "nothing was done" in mtrun(*words).out


def test_several_archives_make_one_data_set_and_what_is_missing_is_said(mtrun: Mtrun, tmp_path: Path) -> None:
    whole = write_mtan(tmp_path / "whole", SIZE)
    with zipfile.ZipFile("one.zip", "w") as one, zipfile.ZipFile("two.zip", "w") as two:
        for file in sorted(whole.rglob("*.npy")):
            name = file.relative_to(whole).as_posix()
            (one if "image" in name or "label" in name else two).write(file, f"nyuv2/{name}")
    outcome = mtrun("data", "prepare", "nyuv2", "archives=[one.zip]", "dataset.root=one")
    assert outcome.code == 0
    assert "not usable yet: depth (train): one/train: no folder depth" in outcome.out
    assert (
        mtrun("data", "prepare", "nyuv2", "archives=[one.zip,two.zip]", "dataset.root=both", "--json").json["missing"]
        == {}
    )


def test_an_archive_of_something_else_leaves_nothing(mtrun: Mtrun) -> None:
    with tarfile.open("x.tgz", "w:gz") as tar:
        info = tarfile.TarInfo("holiday/beach.jpg")
        tar.addfile(info, io.BytesIO())
    outcome = mtrun("data", "prepare", "nyud", "archives=[x.tgz]", "dataset.root=new")
    assert outcome.code == 3
    assert (
        "no folder of what was unpacked is a data set that nyud can open (it holds holiday): gt_sets/train.txt: no such"
        in outcome.err
    )
    assert [path.name for path in Path().iterdir()] == ["x.tgz"]


def test_an_archive_that_fails_in_the_middle_leaves_nothing(mtrun: Mtrun, root: Path) -> None:
    data = tgz(Path("x.tgz"), root, "NYUD_MT").read_bytes()
    Path("x.tgz").write_bytes(data[: len(data) // 2])
    outcome = mtrun("data", "prepare", "nyud", "archives=[x.tgz]", "dataset.root=new")
    assert outcome.code == 3
    assert sorted(path.name for path in Path().iterdir()) == ["data", "x.tgz"]


# ---- show


def test_pictures_are_drawn_with_their_labels_and_augmented_beside(mtrun: Mtrun, root: Path) -> None:
    plain = mtrun("data", "show", "nyud", "dataset.root=data", "--json").json
    assert plain == {
        "output": "nyud-train.png", "split": "train", "ids": ["0001", "0002"],
        "tasks": ["semseg", "depth", "normals", "edges"],
    }  # fmt: skip
    words = ("data", "show", "nyud", "dataset.root=data", "augment=true", "seed=3", "count=1", "tasks=[depth]")
    first = mtrun(*words, "output=one.png", "split=val")
    assert "1 of 1 pictures of split val are drawn in one.png" in first.out
    mtrun(*words, "output=two.png", "split=val")
    assert Path("one.png").read_bytes() == Path("two.png").read_bytes()
    width = Image.open("one.png").width
    assert Image.open("nyud-train.png").width > width > 4 * 192


class OddPlugin:
    @hookimpl
    def mt_datasets(self) -> Mapping[str, type]:
        return {"half": Half}


@dataclass(kw_only=True)
class Half(OddSet):
    """A picture without the annotation of a task."""

    samples: tuple[Any, ...] = ()

    def split(self, name: str, tasks: Sequence[Task]) -> Samples:
        return Odd((Sample("a", image_of(0), {"semseg": CLASSES}),), tuple(tasks))


def test_a_picture_that_lacks_an_annotation_has_an_empty_cell(mtrun: Mtrun) -> None:
    with plugin(OddPlugin(), "odd"):
        outcome = mtrun("data", "show", "half", "output=x.png")
        assert outcome.code == 0, outcome.err
        told = mtrun("data", "verify", "half", "dry_run=true", "splits=[train]", "--json").json
    assert told["splits"]["train"]["tasks"]["depth"] == {"kind": "depth", "pictures": 0}
    cells = np.array(Image.open("x.png"))
    assert (cells[30:200, 2 * 196 + 8 : 3 * 196] == 255).all()
    assert (cells[30:200, 196 + 8 : 2 * 196] != 255).any()
