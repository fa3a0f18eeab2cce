"""Names, sizes and docstrings: a reader finds their way."""

from __future__ import annotations

import ast

import pytest

from .workspace import ROOT, Dist, Module, dists, modules_of_tests, parse

VAGUE = {"utils", "util", "helpers", "helper", "common", "misc", "tools"}
LONGEST = 320  # lines of a file


def every_module() -> list[Module]:
    scripts = [parse(path) for group in ("scripts", "benchmarks") for path in (ROOT / group).glob("*.py")]
    return [*(module for dist in dists() for module in dist.modules), *scripts, *modules_of_tests()]


def undocumented(module: Module) -> list[str]:
    """Public functions and classes of a module without a docstring. What a hook implements, its hook documents."""
    return [
        node.name
        for node in module.tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not any("hookimpl" in ast.unparse(decorator) for decorator in node.decorator_list)
        and ast.get_docstring(node) is None
    ]


def test_no_module_has_a_name_that_says_nothing() -> None:
    vague = [
        str(module) for module in every_module() if VAGUE & {module.path.stem, *module.path.relative_to(ROOT).parts}
    ]
    assert not vague, f"name them by what they hold: {vague}"


def test_no_file_is_long() -> None:
    code = [module for dist in dists() for module in dist.modules]
    long = {str(module): lines for module in code if (lines := _lines(module)) > LONGEST}
    assert not long, f"more than {LONGEST} lines: {long}"


@pytest.mark.parametrize("dist", dists(), ids=lambda dist: dist.name)
def test_every_module_says_what_it_is(dist: Dist) -> None:
    silent = [str(module) for module in dist.modules if not ast.get_docstring(module.tree)]
    assert not silent


@pytest.mark.parametrize("dist", dists(), ids=lambda dist: dist.name)
def test_every_public_function_and_class_is_documented(dist: Dist) -> None:
    missing = {str(module): names for module in dist.modules if (names := undocumented(module))}
    assert not missing


def test_a_missing_docstring_is_found() -> None:
    source = 'def a(): pass\nclass B: pass\ndef _c(): pass\n@hookimpl\ndef d(): pass\ndef e():\n    "Said."\n'
    assert undocumented(Module(ROOT / "x.py", ast.parse(source))) == ["a", "B"]


def _lines(module: Module) -> int:
    return len(module.path.read_text().splitlines())
