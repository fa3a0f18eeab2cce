"""Dependencies point one way: plugins -> core, mtrun -> core."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions

import pytest

from .workspace import Dist, dists, literals

OURS = {dist.package: dist for dist in dists()}
CORE, APP = OURS["mt_core"], OURS["mtrun"]
PLUGINS = [dist for dist in dists() if dist not in (CORE, APP)]


def imports(tree: ast.AST) -> Iterator[str]:
    """The top-level names of everything imported, wherever: in functions and for type checkers, too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module.partition(".")[0]


def imported(dist: Dist) -> dict[str, str]:
    """{top-level name: a module that imports it}, the dist itself left out."""
    return {name: str(module) for module in dist.modules for name in imports(module.tree) if name != dist.package}


def of_ours(dist: Dist) -> dict[str, str]:
    return {name: where for name, where in imported(dist).items() if name in OURS}


def test_an_import_is_found_wherever_it_stands() -> None:
    source = (
        "import a.b\nfrom c.d import e\nfrom . import f\nif TYPE_CHECKING:\n    import g\ndef h():\n    from i import j"
    )
    assert sorted(imports(ast.parse(source))) == ["a", "c", "g", "i"]


def test_the_whole_workspace_is_looked_at() -> None:
    assert {"mt_core", "mtrun", "mt_adapters_mtlora", "mt_backbones_swin", "mt_datasets"} <= set(OURS)
    assert all(dist.modules for dist in dists())


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: plugin.name)
def test_a_plugin_imports_core_and_nothing_else_of_ours(plugin: Dist) -> None:
    assert of_ours(plugin).keys() == {"mt_core"}, of_ours(plugin)


def test_core_imports_nothing_else_of_ours_and_knows_neither_hydra_nor_deepspeed() -> None:
    assert not of_ours(CORE)
    assert not {"hydra", "omegaconf", "deepspeed"} & imported(CORE).keys()


def test_the_app_imports_core_and_no_plugin() -> None:
    assert of_ours(APP).keys() == {"mt_core"}, of_ours(APP)


@pytest.mark.parametrize("dist", dists(), ids=lambda dist: dist.name)
def test_a_class_given_by_name_is_in_the_dist_that_gives_it(dist: Dist) -> None:
    named = {
        text for module in dist.modules for text in literals(module.tree) if re.fullmatch(r"[\w.]+:[A-Z]\w*", text)
    }
    assert all(text.partition(":")[0].partition(".")[0] == dist.package for text in named), named


@pytest.mark.parametrize("dist", dists(), ids=lambda dist: dist.name)
def test_declared_dependencies_follow_the_arrows(dist: Dist) -> None:
    ours = {other.name for other in dists()} & dist.requires
    assert ours == (set() if dist is CORE else {"mt-core"})


@pytest.mark.parametrize("dist", dists(), ids=lambda dist: dist.name)
def test_every_import_is_declared(dist: Dist) -> None:
    providers = packages_distributions()
    for name, where in imported(dist).items():
        if name not in sys.stdlib_module_names and name not in OURS:
            brings = {provider.lower().replace("_", "-") for provider in providers.get(name, [name])}
            assert brings & dist.requires, f"{where} imports {name} ({brings}), which {dist.name} does not require"
