"""Metrics over two processes that are dealt whole batches, against the literal definitions over all batches."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mt_core.protocols import protocol

from .protocol_literals import CASES, DEALS, dealt, literal, measure

SCRIPT = Path(__file__).with_name("protocol_rank.py")
Found = dict[str, dict[str, float]]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What two processes find together, as the second one says, which has no batch under `one batch`."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-W", "ignore", str(SCRIPT)]
    files = [str(folder / "rendezvous"), str(folder / "found.json")]
    processes = [subprocess.Popen([*command, str(rank), "2", *files], stderr=subprocess.PIPE) for rank in range(2)]
    errors = [process.communicate(timeout=300)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    found: Found = json.loads((folder / "found.json").read_text())
    return found


@pytest.mark.parametrize("deal", DEALS)
@pytest.mark.parametrize(("rules", "kind"), CASES)
def test_two_processes_find_what_the_definitions_say(together: Found, rules: str, kind: str, deal: str) -> None:
    given = dealt(kind, deal)
    expected = literal(rules, kind, given[1:] if deal == "void first" else given)
    found = together[f"{rules} {kind} {deal}"]
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-7, nan_ok=True)


@pytest.mark.parametrize("deal", DEALS)
def test_two_processes_match_edges_as_one_does(together: Found, deal: str) -> None:
    expected = measure(protocol("astmt").thorough(), "edges", dealt("edges", deal))
    assert together[f"astmt edges {deal}"] == pytest.approx(expected, rel=1e-12)
