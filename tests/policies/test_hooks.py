"""Every hook is documented under the signature that the code has, and used by a test."""

from __future__ import annotations

import ast
import re

import pytest

from mt_core import hookspecs

from .workspace import ROOT, modules_of_tests, parse

SPECS = parse(ROOT / "packages/core/src/mt_core/hookspecs.py")
DOCUMENTED = re.findall(r"`(mt_\w+\(.*\) -> [^`]*)`", (ROOT / "docs/plugins.md").read_text())


def hooks() -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in SPECS.tree.body if isinstance(node, ast.FunctionDef)}


def signature(hook: ast.FunctionDef) -> str:
    assert hook.returns is not None
    return f"{hook.name}({ast.unparse(hook.args)}) -> {ast.unparse(hook.returns)}"


def test_the_hooks_are_all_there_is_in_the_module_of_hooks() -> None:
    assert set(hooks()) == {name for name in vars(hookspecs) if name.startswith("mt_")}
    assert len(hooks()) >= 8


@pytest.mark.parametrize("hook", hooks().values(), ids=hooks())
def test_a_hook_is_documented_under_its_very_signature(hook: ast.FunctionDef) -> None:
    assert signature(hook) in DOCUMENTED, (
        f"docs/plugins.md has {[s for s in DOCUMENTED if s.startswith(hook.name + '(')]}"
    )


@pytest.mark.parametrize("hook", hooks().values(), ids=hooks())
def test_a_hook_says_what_it_is_for(hook: ast.FunctionDef) -> None:
    assert ast.get_docstring(hook)


def test_nothing_is_documented_that_is_no_hook() -> None:
    assert {text.partition("(")[0] for text in DOCUMENTED} == set(hooks())


@pytest.mark.parametrize("name", hooks())
def test_a_hook_is_implemented_by_a_test(name: str) -> None:
    implementing = [
        str(module)
        for module in modules_of_tests()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef) and node.name == name
    ]
    assert implementing, f"no test implements {name}"
