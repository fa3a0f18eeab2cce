"""Discovery: plugins are found through their entry points, a broken one harms nobody else, names are looked up."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from mt_core import discovery
from mt_core.discovery import KINDS, Registry, load
from mt_core.errors import ConfigError, PluginError
from mt_core.hookspecs import hookimpl

Install = Callable[..., None]

GOOD = """
from mt_core.hookspecs import hookimpl
class Mine: pass
@hookimpl
def mt_adapters():
    return {"mine": Mine}
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a dist with one plugin where Python looks for dists, as pip would."""

    def write(dist: str, source: str, entry: str = "") -> None:
        module = dist.replace("-", "_")
        monkeypatch.delitem(sys.modules, module, raising=False)
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{module}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[mt_adapters]\n{entry or module} = {module}\n")

    monkeypatch.syspath_prepend(tmp_path)
    return write


@pytest.fixture
def quiet() -> object:
    """Any warning fails the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.usefixtures("quiet")
def test_an_installed_plugin_is_found_with_its_version(install: Install) -> None:
    install("mt-mine", GOOD)
    adapters = load().registry("adapters")
    assert adapters["mine"].__name__ == "Mine"
    assert adapters.source("mine") == "mt-mine 1.2"


@pytest.mark.usefixtures("quiet")
def test_what_core_brings_comes_through_the_same_door() -> None:
    assert load().registry("decoders").source("hrnet").startswith("mt-core ")
    assert set(load().registry("tasks")) >= {"segmentation", "depth", "normals"}
    assert not load(entry_points=False).registry("decoders")


@pytest.mark.usefixtures("quiet")
def test_names_are_in_alphabetical_order(install: Install) -> None:
    install("mt-mine", GOOD.replace('{"mine": Mine}', '{"z": Mine, "a": Mine}'))
    names = list(load().registry("adapters"))
    assert names == sorted(names)
    assert {"a", "z"} <= set(names)


@pytest.mark.usefixtures("quiet")
def test_a_dist_that_is_listed_twice_counts_once(install: Install, tmp_path: Path) -> None:
    install("mt-mine", GOOD)
    again = tmp_path / "again" / "mt_mine-1.2.dist-info"
    again.mkdir(parents=True)
    for file in (tmp_path / "mt_mine-1.2.dist-info").iterdir():
        (again / file.name).write_text(file.read_text())
    sys.path.append(str(again.parent))  # undone with the fixture's change of the path
    assert "mine" in load().registry("adapters")


BROKEN_IMPORTS = {
    "a missing module": ("import not_there", "ModuleNotFoundError: No module named 'not_there'"),
    "a mistake": ("1 / 0", "ZeroDivisionError: division by zero"),
    "no Python at all": ("no Python at all", "SyntaxError: "),
    "other arguments than the hook's": (
        GOOD + "@hookimpl\ndef mt_tasks(name):\n    return {}\n",
        "PluginValidationError: .*'mt_tasks'",
    ),
}


@pytest.mark.parametrize(("source", "error"), BROKEN_IMPORTS.values(), ids=BROKEN_IMPORTS)
def test_a_plugin_that_cannot_be_loaded_is_left_out_with_one_warning_and_the_others_work(
    install: Install, source: str, error: str
) -> None:
    install("mt-broken", source)
    install("mt-works", GOOD.replace("mine", "works"))
    with pytest.warns(UserWarning, match=f"(?s)plugin 'mt_broken' of mt-broken 1.2 is left out: {error}") as caught:
        plugins = load()
    assert len(caught) == 1
    assert "works" in plugins.registry("adapters")
    assert "mine" not in plugins.registry("adapters"), "not even a part of it is there"


BROKEN_HOOKS = {
    "raises": ("1 / 0", "ZeroDivisionError: division by zero"),
    "answers nothing": ("pass", "AttributeError: 'NoneType' object has no attribute 'items'"),
}


@pytest.mark.parametrize(("body", "error"), BROKEN_HOOKS.values(), ids=BROKEN_HOOKS)
def test_a_plugin_whose_hook_fails_is_left_out_with_one_warning_and_the_others_work(
    install: Install, body: str, error: str
) -> None:
    install("mt-broken", GOOD + f"@hookimpl\ndef mt_datasets():\n    {body}\n")
    install("mt-works", GOOD.replace("mine", "works"))
    plugins = load()
    with pytest.warns(UserWarning, match=f"plugin 'mt_broken' of mt-broken 1.2 is left out: {error}") as caught:
        found = {kind: set(plugins.registry(kind)) for kind in ("datasets", "adapters", "datasets")}
    assert len(caught) == 1
    assert "works" in found["adapters"]
    assert "mine" not in found["adapters"], "what it contributes elsewhere is left out too"


def test_two_plugins_of_one_name_do_not_replace_each_other(install: Install) -> None:
    install("mt-first", GOOD, entry="same")
    install("mt-second", GOOD.replace("mine", "second"), entry="same")
    with pytest.warns(UserWarning, match="left out: ValueError: another plugin is called 'same' too; its author must"):
        adapters = load().registry("adapters")
    assert len({"mine", "second"} & set(adapters)) == 1


def test_a_misspelt_hook_is_an_error(install: Install) -> None:
    install("mt-typo", GOOD.replace("mt_adapters", "mt_adaptors"))
    with pytest.raises(PluginError, match=r"unknown hook 'mt_adaptors' .*mt_typo.* does not have \(misspelt\?\): mend"):
        load()


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("blocked", ["mt_typo", "other, mt_typo"])
def test_a_plugin_can_be_blocked(install: Install, monkeypatch: pytest.MonkeyPatch, blocked: str) -> None:
    install("mt-typo", GOOD.replace("mt_adapters", "mt_adaptors"))
    install("mt-mine", GOOD)
    monkeypatch.setenv("MT_BLOCK", blocked)
    assert "mine" in load().registry("adapters")


def test_a_name_that_comes_twice_names_both_dists_and_the_way_out(install: Install) -> None:
    install("mt-first", GOOD)
    install("mt-second", GOOD)
    with pytest.raises(
        PluginError, match=r"adapter 'mine' comes from both mt-\w+ 1.2 and mt-\w+ 1.2; uninstall"
    ) as error:
        load().registry("adapters")
    assert "mt-first 1.2" in str(error.value)
    assert "mt-second 1.2" in str(error.value)
    assert any(f"MT_BLOCK={name}" in str(error.value) for name in ("mt_first", "mt_second"))


# ------------------------------------------------------------------------------------------------- look up


def test_a_missing_name_says_what_is_installed_and_what_was_perhaps_meant() -> None:
    adapters = Registry("adapters", {"mtlora": (int, "a 1"), "frozen": (int, "b 1")})
    with pytest.raises(ConfigError) as error:
        adapters["mtlaro"]
    message = "adapter 'mtlaro' is not installed. Did you mean 'mtlora'? Installed adapters: frozen, mtlora."
    assert str(error.value) == message


def test_a_missing_name_that_a_known_dist_brings_says_what_to_install() -> None:
    with pytest.raises(ConfigError, match=r"is not installed. It comes with: pip install mt-adapters-mtlora"):
        Registry("adapters", {})["mtlora"]


def test_a_near_miss_of_what_is_not_installed_is_found_too() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'swin_tiny'\? Installed backbones: none\."):
        Registry("backbones", {})["swin_tinny"]


def test_a_name_that_is_like_none_only_lists_what_is_installed() -> None:
    assert Registry("tasks", {"depth": (int, "a 1")}).missing("qqq") == (
        "task 'qqq' is not installed. Installed tasks: depth."
    )


def test_a_class_may_be_named_and_is_imported_when_asked_for() -> None:
    found = Registry("adapters", {"lazy": ("collections:OrderedDict", "a 1")})
    assert found["lazy"].__name__ == "OrderedDict"
    assert "lazy" in found
    assert len(found) == 1


UNRESOLVED = {
    "no such module": ("not_there:Class", "ModuleNotFoundError: No module named 'not_there'; mend or uninstall a 1"),
    "no such class": ("collections:Missing", "AttributeError: .*'Missing'"),
    "no name at all": ("not a name", "ValueError: invalid format"),
}


@pytest.mark.parametrize(("where", "error"), UNRESOLVED.values(), ids=UNRESOLVED)
def test_a_class_that_cannot_be_imported_names_its_dist(where: str, error: str) -> None:
    with pytest.raises(PluginError, match=f"adapter 'lazy' of a 1 cannot be imported from {where}: {error}"):
        Registry("adapters", {"lazy": (where, "a 1")})["lazy"]


@pytest.mark.parametrize("found", ["math:pi", 3.14])
def test_what_is_no_class_is_refused(found: type | str) -> None:
    with pytest.raises(PluginError, match=r"adapter 'odd' of a 1: .* is a float, not a class"):
        Registry("adapters", {"odd": (found, "a 1")})["odd"]


def test_the_installed_plugins_are_loaded_once() -> None:
    assert discovery.plugins() is discovery.plugins()
    assert set(discovery.registry("adapters")) == set(discovery.plugins().registry("adapters"))


def test_every_class_that_is_installed_can_be_imported() -> None:
    for kind in KINDS:
        found = discovery.registry(kind)
        assert all(isinstance(found[name], type) for name in found)


def test_a_list_of_what_is_installed_imports_no_torch() -> None:
    code = (
        "import sys, mt_core\n"
        "names = [name for kind in ('adapters', 'backbones', 'decoders', 'datasets', 'tasks')"
        " for name in mt_core.registry(kind)]\n"
        "assert 'frozen' in names, names\n"
        "print([name for name in ('torch', 'numpy', 'timm', 'torchvision') if name in sys.modules])\n"
    )
    ran = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == "[]", ran.stderr


def test_the_same_implementation_marker_serves_functions_and_objects() -> None:
    class Object:
        @hookimpl
        def mt_adapters(self) -> dict[str, type]:
            return {"mine": int}

    plugins = load(entry_points=False)
    plugins.manager.register(Object(), "an object")
    assert plugins.registry("adapters").source("mine") == "an object"
