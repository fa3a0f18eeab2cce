"""`mtrun compare`: the command line, the tables and files it writes, and the pictures of real runs."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from mt_core.errors import ConfigError
from mt_core.tasks import Depth, Normals, Saliency, Segmentation
from mtrun.comparison import FILES, compare, compare_runs
from mtrun.comparison.charts import Mark, alone, bars, pareto
from mtrun.comparison.gallery import RAMP, VOID, _errors, gallery, paint
from mtrun.comparison.report import bar_charts, html, pareto_charts
from mtrun.comparison.text import comma_separated, markdown
from mtrun.verbs.compare import parse

from .conftest import Mtrun
from .finished_runs import finished, single

VOID_ELEMENTS = {"meta", "img", "br"}
EVIL = '<script>alert(1)</script>"&\x1b[31m|`=x'


class Page(HTMLParser):
    """Checks that tags are closed in order, and collects what could reach out."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.links: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "action", "data")]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in VOID_ELEMENTS:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two methods of two seeds, and a single-task baseline."""
    found = [
        finished(tmp_path / f"r{rank}s{seed}", {"adapter": {"rank": rank}}, seed=seed, **result(rank, seed))
        for rank in (16, 64)
        for seed in (0, 1)
    ]
    return [*found, single(tmp_path / "a", "semseg", miou=67.0), single(tmp_path / "b", "normals", mean_angle=18.0)]


def result(rank: int, seed: int) -> dict[str, object]:
    best = {"semseg": {"miou": 66.0 + rank / 16 + seed}, "normals": {"mean_angle": 17.0 - rank / 64}}
    return {"metrics": {"best": best}, "parameters": {"trainable": 1_000_000 + 50_000 * rank}}


def test_the_table_is_printed_and_the_files_are_written(mtrun: Mtrun, runs: list[Path]) -> None:
    words = [*map(str, runs[:4]), f"baseline={runs[4]},{runs[5]}", "output=report", "pictures=0"]
    outcome = mtrun("compare", *words)
    assert outcome.code == 0, outcome.err
    for text in (
        "protocol astmt, data set pascal",
        "mtlora, rank=16",
        "Gains over: full, one model per task",
        "GMACs full",
    ):
        assert text in outcome.out
    assert "\u0394m %" in outcome.out
    assert sorted(path.name for path in Path("report").iterdir()) == sorted(FILES)
    assert json.loads(Path("report/comparison.json").read_text())["tables"][0]["rows"][0]["n"] == 2


def test_json_holds_what_the_table_shows(mtrun: Mtrun, runs: list[Path]) -> None:
    outcome = mtrun("compare", *map(str, runs[:2]), "--dry-run", "true", "--json")
    (table,) = outcome.json["tables"]
    (row,) = table["rows"]
    assert row["metrics"]["semseg"]["miou"] == {"mean": 67.5, "sd": pytest.approx(0.5**0.5), "n": 2}
    assert (row["published"], row["delta_m"]["mean"], row["costs"]["gmacs_full"]["mean"]) == (None, None, 25)
    assert outcome.json["files"] == {}
    assert not Path("comparison").exists()


def test_papers_can_be_shown_alone(mtrun: Mtrun) -> None:
    outcome = mtrun("compare", "--paper", "tglora:table2", "output=x")
    assert outcome.code == 0, outcome.err
    assert "Published numbers, not measured here." in outcome.out
    assert "34.65" in outcome.out


def test_what_must_not_be_compared_is_warned_of(mtrun: Mtrun, runs: list[Path], tmp_path: Path) -> None:
    other = finished(tmp_path / "other", protocol="mtan")
    outcome = mtrun("compare", str(runs[0]), str(other), "dry_run=true")
    assert "table 2 is not to be compared with table 1: protocol astmt there, mtan here" in outcome.err
    assert "Not to be compared with table 1" in outcome.out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nowhere"], 4, "no such folder; expected the folder of a run"),
        ([], 2, "nothing to compare"),
        (["--paper", "mtlora:tabel1"], 2, "did you mean 'mtlora:table1'?"),
        (["--papr=x"], 2, "unknown option '--papr=x'; did you mean --paper? mtrun compare --help lists them"),
        (["--paper"], 2, "--paper needs a value, as in --paper=VALUE"),
        (["--paper", "mtlora:table1", "pictures=some"], 2, "pictures=some: expected a whole number from 0 on"),
        (["--paper", "mtlora:table1", "dry_run=1"], 2, "dry_run=1: expected true or false"),
        (["--paper", "mtlora:table1", "weights=worst"], 2, "weights"),
        (["--paper", "mtlora:table1", "output=taken"], 2, "output=taken is a file; expected a folder"),
        (["--paper", "mtlora:table1", "output=taken/below"], 2, "output=taken/below cannot be written"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(mtrun: Mtrun, words: list[str], code: int, message: str) -> None:
    Path("taken").touch()
    outcome = mtrun("compare", *words)
    assert (outcome.code, outcome.out) == (code, "")
    assert message in outcome.err


def test_words_are_options_only_where_they_name_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a,b").mkdir()
    folders, options = parse(
        ["runs/adapter.rank=16", "--baseline=[x,y]", "paper=mtlora:table1", "--title", "T", "baseline=a,b"]
    )
    assert folders == ["runs/adapter.rank=16"]
    assert options.baseline == ["x", "y", "a,b"]
    assert (options.paper, options.title, options.output) == (["mtlora:table1"], "T", None)
    with pytest.raises(ConfigError, match="pictures=-1: expected a whole number from 0 on"):
        type(options)(pictures=-1)


def test_help_says_every_option(mtrun: Mtrun) -> None:
    text = mtrun("compare", "--help").out
    for word in (
        "usage: mtrun compare RUN ...",
        "paper=[]",
        "baseline=[]",
        "pictures=3",
        "weights=best",
        "output=null",
    ):
        assert word in text


def test_the_report_stands_alone(tmp_path: Path, runs: list[Path]) -> None:
    compare(runs, tmp_path / "out", papers=["mtlora:table1"], baseline=runs[4:], title="Mine", notes=["A note."])
    text = (tmp_path / "out" / "report.html").read_text()
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "form", "base"} & set(page.seen)
    assert all(link.startswith("data:image/") for link in page.links)
    assert not re.search(r"https?:|url\(|@import", text)
    assert "default-src 'none'" in text
    for word in ("<h1>Mine</h1>", "A note.", "published: MTLoRA, Table 1", "Pareto front", "standard deviation"):
        assert word in text
    assert text.count("<svg") == 3  # gains against parameters, and two tasks


def test_a_report_is_the_same_when_it_is_made_again(tmp_path: Path, runs: list[Path]) -> None:
    for name in "xy":
        compare(runs, tmp_path / name, pictures=0)
    for file in FILES:
        assert (tmp_path / "x" / file).read_bytes() == (tmp_path / "y" / file).read_bytes()


def test_nothing_from_a_run_can_act(tmp_path: Path, mtrun: Mtrun) -> None:
    changes = {"adapter": EVIL, "backbone": EVIL, "dataset": EVIL, "environment": {"device_name": EVIL}}
    metrics = {"metrics": {"best": {EVIL: {EVIL: 1.0}}}, "tasks": {EVIL: 1}, "directions": {EVIL: {EVIL: "higher"}}}
    config = {"adapter": {"name": EVIL, EVIL: EVIL}}
    runs = [finished(tmp_path / f"r{i}<b>", {**config, "x": i}, **changes, **metrics) for i in (1, 2)]
    outcome = mtrun("compare", *map(str, runs), f"baseline={runs[0]}", f"title={EVIL}", "output=out")
    assert outcome.code == 0, outcome.err
    assert "\x1b" not in outcome.out + outcome.err
    text = Path("out/report.html").read_text()
    page = Page(text)
    assert not {"script", "b<", "link"} & set(page.seen)
    assert "\x1b" not in text.replace(EVIL, "")
    assert "&lt;script&gt;alert(1)" in text
    assert not re.search(r"(?<!\\)[<`|]script", Path("out/comparison.md").read_text())
    cells = [cell for line in csv.reader(io.StringIO(Path("out/comparison.csv").read_text())) for cell in line]
    assert not any(cell.startswith(("=", "@", "+")) for cell in cells)


def test_a_spreadsheet_gets_full_digits_and_no_formula(runs: list[Path]) -> None:
    found = compare_runs(runs, baseline=[str(run) for run in runs[4:]], names={str(runs[0]): "=SUM(A1)"})
    lines = list(csv.DictReader(io.StringIO(comma_separated(found))))
    assert [line["row"] for line in lines] == ["'=SUM(A1)", "mtlora, rank=64", "full, one model per task"]
    first = lines[0]
    assert (first["source"], first["n"], first["semseg.miou"], first["gmacs_full"]) == ("measured", "2", "67.5", "25.0")
    assert float(first["semseg.miou sd"]) == pytest.approx(0.5**0.5)
    assert float(first["delta_m"]) == found.tables[0].rows[0].delta_m.mean
    assert lines[2]["semseg.miou sd"] == ""


def test_markdown_has_every_metric_and_cost(runs: list[Path]) -> None:
    text = markdown(compare_runs(runs[:4]))
    header = next(line for line in text.splitlines() if "semseg miou" in line)
    assert "semseg pixel\\_accuracy" in header
    row = next(line for line in text.splitlines() if line.startswith("| mtlora, rank=16 "))
    assert row.count("|") == header.count("|")
    assert "67.50 \u00b1 0.71" in row


def test_the_front_is_what_no_other_row_beats() -> None:
    points = {"a": (1e6, 1.0), "b": (2e6, 3.0), "worse": (3e6, 2.0), "c": (4e6, 4.0), "paper": (1.5e6, 9.0)}
    marks = [Mark(name, x, y, 0.1, name == "paper", str(y)) for name, (x, y) in points.items()]
    svg = ElementTree.fromstring(pareto(marks, "gain"))
    path = next(x for x in svg.iter("path")).attrib["d"]
    at = {title.text.split(":")[0]: c.attrib for c in svg.iter("circle") for title in c if title.text}
    assert at["paper"]["class"] == "published"
    assert path == f"M{at['a']['cx']} {at['a']['cy']}" + "".join(f" H{at[n]['cx']} V{at[n]['cy']}" for n in "bc")
    assert float(at["b"]["cy"]) < float(at["a"]["cy"])  # up is more
    assert float(at["a"]["cx"]) < float(at["b"]["cx"])


def test_for_an_error_the_front_goes_down() -> None:
    marks = [Mark(n, x, y, float("nan"), False, n) for n, x, y in (("a", 1e6, 3.0), ("b", 2e6, 5.0), ("c", 3e6, 1.0))]
    path = next(x for x in ElementTree.fromstring(pareto(marks, "error", higher=False)).iter("path"))
    assert path.attrib["d"].count("H") == 1


def test_bars_are_as_long_as_their_numbers() -> None:
    marks = [Mark("a", 1, 10.0, 1.0, False, "10"), Mark("<b>", 1, 20.0, float("nan"), True, "20")]
    svg = ElementTree.fromstring(bars(marks, "t", reference=15))
    first, second = (float(rect.attrib["width"]) for rect in svg.iter("rect"))
    assert second == pytest.approx(2 * first, abs=0.2)
    assert {rect.attrib["class"] for rect in svg.iter("rect")} == {"measured", "published"}


def test_charts_can_stand_alone(runs: list[Path]) -> None:
    (table,) = compare_runs(runs).tables
    found = [*pareto_charts(table), *bar_charts(table).values()]
    assert len(found) == 4  # without gains, each task has both
    for chart in found:
        assert ElementTree.fromstring(alone(chart)).tag == "{http://www.w3.org/2000/svg}svg"


def test_errors_are_what_their_captions_say() -> None:
    label, guess = torch.tensor([[0, 1], [2, 255]]), torch.tensor([[0, 2], [2, 1]])
    wrong = _errors(Segmentation("s", 3), guess, label)
    assert wrong is not None
    assert wrong[:1].tolist() == [[0, 1]]
    up, tilted = torch.tensor([0.0, 0, 1]).view(3, 1, 1), torch.tensor([0.0, 3, 3]).view(3, 1, 1)
    angle = _errors(Normals("n", 3), tilted, up)
    assert angle is not None
    assert float(angle) == pytest.approx(45, abs=1e-3)
    for task in (Depth("d"), Saliency("s")):
        difference = _errors(task, torch.full((1, 1, 1), 0.25), torch.ones(1, 1, 1))
        assert difference is not None
        assert float(difference) == 0.75


def test_error_maps_show_where_nothing_is_annotated() -> None:
    picture = paint(torch.tensor([[0.0, 1.0, 0.5]]), torch.tensor([[True, True, False]]))
    assert [picture.getpixel((x, 0)) for x in range(3)] == [RAMP[0], RAMP[-1], VOID]


def test_real_runs_predict_the_same_pictures(trained: Path, mtrun: Mtrun) -> None:
    shutil.copytree(trained, "other")
    config = Path("other/config.yaml")
    config.write_text(config.read_text().replace("seed: 0", "seed: 1"))
    found = json.loads(Path("other/result.json").read_text())
    Path("other/result.json").write_text(json.dumps({**found, "seed": 1, "adapter": "other"}))
    config.write_text(config.read_text().replace("lr: 0.0005", "lr: 0.0006"))
    outcome = mtrun("compare", str(trained), "other", "pictures=2", "output=out", f"baseline={trained}")
    assert outcome.code == 0, outcome.err
    page = Page(Path("out/report.html").read_text())
    strips, rows = 2 * 4, 2
    assert len(page.links) == strips * (2 + 2 * rows)
    (table,) = compare_runs([trained, Path("other")]).tables
    shown = gallery(table, 2, "best")
    assert shown.notes == []
    assert {strip.picture for strip in shown.strips} == {"toy-0", "toy-3"}
    for strip in shown.strips:
        first, second = strip.predictions  # the same weights
        assert first.caption == second.caption
        assert first.colours.tobytes() == second.colours.tobytes()


def test_a_run_says_what_it_cost(trained: Path) -> None:
    found = json.loads((trained / "result.json").read_text())
    assert found["gmacs"]["full"] > found["encoder_gmacs"]["full"] > 0
    assert found["gmacs"]["published"] > 0
    assert found["mib"] == round(found["parameters"]["trainable"] * 4 / 2**20, 2)
    assert 0 < found["step_seconds"] <= found["seconds"]
    assert 50 < found["peak_memory_mib"]["host"] < 1e6
    assert found["peak_memory_mib"]["device"] is None
    assert found["images"] == 6


def test_pictures_are_left_out_where_the_data_or_the_model_is_gone(trained: Path, mtrun: Mtrun) -> None:
    shutil.copytree(trained, "run")
    shutil.rmtree("run/artefacts")
    assert mtrun("compare", "run").code == 0
    assert "No predictions of mtlora: run: no artefact there" in Path("comparison/report.html").read_text()
    config = Path("run/config.yaml")
    config.write_text(config.read_text().replace("name: toy", "name: gone"))
    assert mtrun("compare", "run").code == 0
    assert "No pictures: the data set cannot be read here" in Path("comparison/report.html").read_text()


def test_an_artefact_for_another_size_is_not_shown(trained: Path, mtrun: Mtrun) -> None:
    shutil.copytree(trained, "run")
    found = json.loads(Path("run/result.json").read_text())
    Path("run/result.json").write_text(json.dumps({**found, "image_size": [64, 80]}))
    shown = gallery(compare_runs([Path("run")]).tables[0], 1, "final")
    assert shown.notes == ["No predictions of mtlora: its artefact takes pictures of another size."]


def test_a_table_without_runs_has_no_pictures() -> None:
    found = compare_runs([], papers=["vmt:table2"])
    assert "<h3>The same pictures</h3>" not in html(found, [gallery(found.tables[0], 3, "best")], "T")
