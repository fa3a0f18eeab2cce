"""What the workspace holds: its dists, their modules as syntax trees, and the tests."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Module:
    """A source file and its syntax tree."""

    path: Path
    tree: ast.Module

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT))


@dataclass(frozen=True)
class Dist:
    """A package of the workspace, as its pyproject.toml describes it.

    Attributes:
        name: under which it is installed.
        package: under which it is imported.
        requires: names of the dists it declares, extras included.
    """

    name: str
    package: str
    folder: Path
    requires: frozenset[str]

    @property
    def modules(self) -> list[Module]:
        return [parse(path) for path in sorted((self.folder / "src").rglob("*.py"))]


@cache
def parse(path: Path) -> Module:
    return Module(path, ast.parse(path.read_text(), str(path)))


@cache
def dists() -> tuple[Dist, ...]:
    """Every dist of the workspace, the example of a third party's included."""
    files = [file for group in ("packages", "apps", "examples") for file in (ROOT / group).rglob("pyproject.toml")]
    return tuple(_dist(file) for file in sorted(files))


def modules_of_tests() -> list[Module]:
    """Every test and what belongs to it, but for these policies."""
    files = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "examples").glob("*/tests/*.py")]
    return [parse(path) for path in sorted(files) if path.parent != Path(__file__).parent]


def literals(node: ast.AST) -> Iterator[str]:
    """The string constants in a piece of code; the parts between the holes of f-strings count one by one."""
    for child in ast.walk(node):
        if isinstance(child, ast.Constant) and isinstance(child.value, str):
            yield child.value


def _dist(file: Path) -> Dist:
    project: dict[str, Any] = tomllib.loads(file.read_text())["project"]
    extras = project.get("optional-dependencies", {}).values()
    requires = [*project.get("dependencies", []), *(line for extra in extras for line in extra)]
    packages = [folder.name for folder in (file.parent / "src").iterdir() if (folder / "__init__.py").is_file()]
    assert len(packages) == 1, f"{file.parent}: expected one package in src, found {packages}"
    return Dist(project["name"], packages[0], file.parent, frozenset(map(_name, requires)))


def _name(requirement: str) -> str:
    """'Foo_bar>=1' -> 'foo-bar', as indexes normalise it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]).lower()
