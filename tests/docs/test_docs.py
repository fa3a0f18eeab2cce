"""What the documentation says is true: its code, output, commands, counts, quotes, links and options."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from mt_core.discovery import KINDS, registry
from mtrun.cli import main
from mtrun.config import TrainConfig
from mtrun.docs import options_of
from mtrun.recipe import TrainerOptions

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    page.relative_to(ROOT).as_posix()
    for pattern in ("README.md", "docs/*.md", "packages/**/README.md", "apps/*/README.md", "examples/*/README.md")
    for page in ROOT.glob(pattern)
)
DISTS = [page for page in PAGES if page.startswith(("packages/", "apps/"))]
COUNTS = (ROOT / "docs" / "counts.md").read_text()


@dataclass(frozen=True)
class Block:
    """A fenced block: ```LANGUAGE file=PATH. With a path it quotes that file, or a part of it."""

    language: str
    file: str
    text: str
    line: int


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text()
    found = re.finditer(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [Block(m[1], m[2] or "", m[3], text.count("\n", 0, m.start()) + 2) for m in found]


def commands(page: str) -> list[list[str]]:
    """The command lines of `mtrun` on a page that can be run as they stand: no word in capitals is to be filled in."""
    lines = [line for block in blocks(page) if block.language == "console" for line in block.text.splitlines()]
    return [shlex.split(line)[2:] for line in lines if line.startswith("$ mtrun ") and not re.search(r"[A-Z]{3}", line)]


@pytest.fixture
def namespace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    """A module to run a page in, in an empty folder, with the example plugin importable."""
    monkeypatch.syspath_prepend(ROOT / "examples" / "mt-adapters-bottleneck" / "src")
    monkeypatch.chdir(tmp_path)
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    return module


@pytest.mark.parametrize("page", [page for page in PAGES if any(b.language == "python" for b in blocks(page))])
def test_the_code_of_a_page_runs_and_prints_what_the_page_says(page: str, namespace: ModuleType) -> None:
    printed = io.StringIO()
    for block in blocks(page):
        if block.language == "python":
            printed = io.StringIO()
            code = compile("\n" * (block.line - 1) + block.text, str(ROOT / page), "exec")
            with contextlib.redirect_stdout(printed):
                exec(code, namespace.__dict__)  # noqa: S102 - our own pages
        elif block.language == "output":
            lines = [line.rstrip() for line in printed.getvalue().splitlines()]
            assert lines == block.text.splitlines(), f"{page}:{block.line}"


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_the_commands_of_a_page_run(page: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for words in commands(page):
        assert main(words) == 0, words


@pytest.mark.parametrize("page", [page for page in PAGES if any(block.file for block in blocks(page))])
def test_the_quotes_of_a_page_are_the_whole_files(page: str) -> None:
    quoted = [block for block in blocks(page) if block.file]
    for file in {block.file for block in quoted}:
        text = re.sub(r"\n{2,}", "\n", (ROOT / file).read_text())
        parts = [re.sub(r"\n{2,}", "\n", block.text) for block in quoted if block.file == file]
        assert "".join(parts) == text, f"{page}: the blocks with file={file} are not its text, in order"


@pytest.mark.parametrize("page", PAGES)
def test_the_links_of_a_page_lead_somewhere(page: str) -> None:
    prose = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", prose):
        if "://" not in target:
            assert ((ROOT / page).parent / target).exists(), f"{page}: {target}"


@pytest.mark.parametrize("page", DISTS)
def test_the_readme_of_a_dist_has_every_option_of_its_plugins(page: str) -> None:
    dist = tomllib.loads((ROOT / page).with_name("pyproject.toml").read_text())["project"]["name"]
    documented = option_tables(page)
    for kind in set(KINDS) - {"tasks"}:  # whose options are the data sets' to choose
        entries = registry(kind)
        for name in (name for name in entries if entries.source(name).startswith(f"{dist} ")):
            options = {f"{kind[:-1]}.{option.name}": option.shown for option in options_of(entries[name])}
            assert documented.get(name, {}) == options, f"{page} needs a section `{name}` with its options"


def test_every_adapter_of_the_project_has_a_row_in_the_table() -> None:
    rows = re.findall(r"^\| `(\w+)` \| mt-", (ROOT / "docs" / "adapters.md").read_text(), re.MULTILINE)
    assert rows == [
        name for name in registry("adapters") if registry("adapters").source(name) != "mt-adapters-bottleneck 0.1.0"
    ]


def test_the_options_of_training_have_the_defaults_that_the_readme_says() -> None:
    documented = option_tables("apps/mtrun/README.md")["train"]
    top = {option.name: option.shown for option in options_of(TrainConfig)}
    trainer = {f"trainer.{option.name}": option.shown for option in options_of(TrainerOptions)}
    assert documented.items() <= {**top, **trainer}.items()


def option_tables(page: str) -> dict[str, dict[str, str]]:
    """The tables of options on a page, {name: {option: default}}: each below a heading with the names it is for."""
    tables = {}
    for section in re.split(r"^(?=##)", (ROOT / page).read_text(), flags=re.MULTILINE):
        heading, _, body = section.partition("\n")
        rows = dict(re.findall(r"^\| `([\w.]+)` \| `(.*?)` \|", body, re.MULTILINE))
        tables |= dict.fromkeys(re.findall(r"`(\w+)`", heading) if heading.startswith("### ") else [], rows)
    return tables


def count_rows() -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of docs/counts.md: the command with the row's words, and what it says by column.

    Every second row of each table, and all with MT_EXHAUSTIVE=1: the methods' own tests count most of them, too.
    """
    for command, table in re.findall(r"```console\n\$ mtrun (.*)\n```\n\n((?:\|.*\n)+)", COUNTS):
        header, _, *rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in table.splitlines()]
        for row in rows if os.environ.get("MT_EXHAUSTIVE") == "1" else rows[::2]:
            yield command.replace("WORDS", row[0]), dict(zip(header[1:], row[1:], strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("command", "row"), [pytest.param(*case, id=case[0]) for case in count_rows()])
def test_the_counts_are_what_the_command_prints(
    command: str, row: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(shlex.split(command)) == 0
    value = json.loads(capsys.readouterr().out)
    assert row == {
        "trainable": f"{value['trainable']:,}",
        "live": f"{value['live']:,}",
        "published GMACs": f"{value['gmacs']['published']:.2f}",
        "full GMACs": f"{value['gmacs']['full']:.2f}",
    }
