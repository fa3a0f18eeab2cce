"""Balancers as a config group: found by name, shown with their options, imported only when they are chosen."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from mtrun.balancers import BALANCERS, Balancer
from mtrun.cli import main
from mtrun.config import TrainConfig
from mtrun.docs import options_of


@pytest.mark.parametrize("name", BALANCERS)
def test_a_balancer_is_a_dataclass_whose_options_are_all_documented(name: str) -> None:
    cls = BALANCERS[name]
    assert issubclass(cls, Balancer)
    assert dataclasses.is_dataclass(cls)
    assert all(option.help for option in options_of(cls))
    assert "balancer" in TrainConfig.groups


def test_the_list_of_balancers_imports_nothing_heavy() -> None:
    code = (
        "import sys, mtrun.balancers as b; assert 'upgrad' in b.BALANCERS; "
        "print({'torch', 'numpy', 'scipy', 'torchjd', 'cvxpy'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_a_balancer_is_shown_with_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "show", "balancer", "dwa"]) == 0
    assert "balancer.temperature" in capsys.readouterr().out


def test_options_of_a_balancer_are_composed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["balancer=dwa", "balancer.every=7", "--cfg", "job"]) == 0
    assert "balancer:\n  temperature: 2.0\n  every: 7\n  name: dwa\n" in capsys.readouterr().out


def test_a_misspelt_balancer_is_a_wrong_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["balancer=pcgard"]) == 2
    assert "balancer 'pcgard' is not installed. Did you mean 'pcgrad'?" in capsys.readouterr().err
