"""Runs a contract of the conformance kit without pytest around it, to see what fails."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any

import pytest
import torch


def failures(contract: object, fixtures: Mapping[str, Callable[[], Any]], without: str = "") -> set[str]:
    """The tests of `contract` that fail. `fixtures` are made anew for each."""
    tests = {
        name: test
        for name, test in inspect.getmembers(contract, inspect.ismethod)
        if name.startswith("test_") and name != without
    }
    return {name for name, test in tests.items() if any(_fails(test, fixtures, given) for given in _parameters(test))}


def _fails(test: Callable[..., None], fixtures: Mapping[str, Callable[[], Any]], given: Mapping[str, Any]) -> bool:
    wanted = [name for name in inspect.signature(test).parameters if name not in given]
    torch.manual_seed(0)
    try:
        test(**{name: fixtures[name]() for name in wanted}, **given)
    except pytest.skip.Exception:
        return False
    except (Exception, pytest.fail.Exception):  # noqa: BLE001 - pytest counts an error as a failure, too
        return True
    return False


def _parameters(test: Callable[..., None]) -> Iterator[dict[str, Any]]:
    """Every combination of the values that a test's marks list."""
    marks = {mark.args[0]: mark.args[1] for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"}
    for values in product(*marks.values()):
        yield dict(zip(marks, values, strict=True))


def properties(contract: type) -> set[str]:
    """The names of all its tests."""
    return {name for name in dir(contract) if name.startswith("test_")}
