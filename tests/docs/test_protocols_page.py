"""The page on protocols names every metric of every protocol, with those of the papers in bold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mt_core.protocols import PROTOCOLS, protocol
from mt_core.tasks import KINDS as TASKS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "protocols.md").read_text()
KINDS = [(name, kind) for name, rules in PROTOCOLS.items() for kind in rules.kinds]


def rows(name: str, kind: str) -> str:
    """The cells with metrics of a kind in a protocol's table; a row without a kind goes on with the one above."""
    table = PAGE.split(f"\n## {name}\n\n")[1].split("\n\n")[0]
    found, current = [], ""
    for line in table.splitlines():
        kinds, metrics, *_ = (cell.strip() for cell in line.strip("|").split("|"))
        current = kinds or current
        if kind in current.split(", "):
            found.append(metrics)
    return " ".join(found)


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_the_page_names_the_metrics_of_a_protocol(name: str, kind: str) -> None:
    task = TASKS[kind](kind, 5) if kind == "segmentation" else TASKS[kind](kind)
    named = re.findall(r"`(\w+)`", rows(name, kind))
    assert sorted(named) == sorted(protocol(name).thorough().metrics(task))
    assert tuple(re.findall(r"\*\*`(\w+)`\*\*", rows(name, kind))) == protocol(name).published(task)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_page_names_the_published_classes(name: str) -> None:
    line = next(line for line in PAGE.splitlines() if line.startswith("| classes of NYUv2"))
    column = 1 + list(PROTOCOLS).index(name)
    assert line.strip("|").split("|")[column].strip() == str(protocol(name).settings["nyuv2"].classes["segmentation"])
