"""Every dist builds a wheel that, installed alone with what it declares, passes its own tests.

All files of tests are imported, and one case is run of each of a few: what is missing shows there. MT_EXHAUSTIVE=1 runs
all cases.
"""

from __future__ import annotations

import email
import json
import os
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from email.message import Message
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYPROJECTS = sorted(
    path
    for pattern in ("packages/*", "packages/*/*", "apps/*", "examples/*")
    for path in ROOT.glob(f"{pattern}/pyproject.toml")
)
DISTS = {tomllib.loads(path.read_text())["project"]["name"]: path.parent for path in PYPROJECTS}
TOOLS = ("mt-core[testing]", "pytest-timeout", "hypothesis")
EXTRAS = {"mtrun": ["mtrun[balancers]"]}  # what modules import that are only used with an extra
NEEDS = {  # what a dist's tests need besides what it declares, as little as possible
    "mt-adapters-mtlora": ["mt-backbones-swin"],
    "mt-adapters-tora": ["tensorly", "mt-backbones-sam"],
    "mt-backbones-pvt": ["transformers"],
    "mt-adapters-vmt": ["mt-backbones-swin"],
    "mt-adapters-tglora": ["mt-backbones-swin"],
    "mt-adapters-baselines": ["mt-backbones-swin", "mt-backbones-sam"],
    "mt-core": ["mt-core[edges]", "mt-backbones-swin", "mt-adapters-tora"],
    "mtrun": [
        "mtrun[balancers]",
        "mtrun[deepspeed]",
        "mt-backbones-swin",
        "mt-backbones-sam",
        "mt-adapters-baselines",
        "mt-adapters-mtlora",
        "mt-adapters-tora",
        "mt-adapters-tglora",
        "mt-adapters-vmt",
        "mt-datasets",
    ],
    "mt-adapters-bottleneck": ["mt-backbones-swin"],
}
IMPORT_ALL = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
names = [module.name for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
for name in names:
    if not name.startswith("mt_core.testing") and not name.endswith("__main__"):
        importlib.import_module(name)
"""
SOME = """
import sys, pytest

class OneOfAFile:
    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items):
        first = list({item.path: item for item in reversed(items) if not item.get_closest_marker("skip")}.values())
        items[:] = first[:: -(-len(first) // 8)]

sys.exit(pytest.main(sys.argv[1:], plugins=[OneOfAFile()]))
"""

pytestmark = pytest.mark.slow


def run(*command: str | Path, **options: str) -> subprocess.CompletedProcess[str]:
    """Run a command that inherits nothing of this environment's python."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST", "VIRTUAL"))}
    return subprocess.run(command, capture_output=True, text=True, env=clean, check=False, **options)


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel of every dist."""
    folder = tmp_path_factory.mktemp("wheels")
    for source in DISTS.values():
        built = run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", folder, source)
        assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture
def environment(wheels: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes an environment with some dists and what they declare, and nothing else; the folder of its commands."""

    def create(*install: str) -> Path:
        script = ROOT / "scripts" / "isolated.py"
        made = run(sys.executable, script, tmp_path / "environment", *install, "--wheels", wheels)
        assert made.returncode == 0, made.stderr
        return tmp_path / "environment" / "bin"

    return create


@pytest.mark.timeout(1800)  # a whole suite, perhaps beside another one
@pytest.mark.parametrize("dist", DISTS)
def test_passes_its_own_tests_when_installed_alone(dist: str, environment: Callable[..., Path], tmp_path: Path) -> None:
    python = environment(dist, *TOOLS, *NEEDS.get(dist, ())) / "python"
    pytest_ = ("-m", "pytest") if os.environ.get("MT_EXHAUSTIVE") == "1" else ("-c", SOME)
    words = ("-m", "not slow", "-p", "no:cacheprovider", f"--rootdir={ROOT}")
    tested = run(python, *pytest_, *words, _tests(dist), cwd=str(tmp_path))
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert " passed" in tested.stdout


@pytest.mark.parametrize("dist", DISTS)
def test_imports_nothing_that_it_does_not_declare(dist: str, environment: Callable[..., Path], tmp_path: Path) -> None:
    python = environment(dist, *EXTRAS.get(dist, ())) / "python"
    imported = run(python, "-c", IMPORT_ALL, _import_name(dist), cwd=str(tmp_path))
    assert imported.returncode == 0, imported.stderr


def test_an_undeclared_import_fails(environment: Callable[..., Path]) -> None:
    names = "mt_core torch torchmetrics timm pytest hydra mt_datasets mtrun"
    finds = f"import importlib.util as i; print(*[name for name in '{names}'.split() if i.find_spec(name)])"
    assert run(environment("mt-core") / "python", "-c", finds).stdout.split() == ["mt_core", "torch", "torchmetrics"]


@pytest.mark.parametrize("dist", DISTS)
def test_a_wheel_holds_the_package_its_types_and_its_licence(dist: str, wheels: Path) -> None:
    package = _import_name(dist)
    wheel = zipfile.ZipFile(next(wheels.glob(f"{package}-*.whl")))
    names, metadata = wheel.namelist(), _metadata(wheel)
    assert all(name.startswith((f"{package}/", f"{package}-")) for name in names)
    assert not [name for name in names if "/tests/" in name or "/test_" in name]
    assert f"{package}/py.typed" in names
    assert metadata["License-Expression"] == "Apache-2.0"
    licence = next(name for name in names if name.endswith("licenses/LICENSE"))
    assert wheel.read(licence) == (ROOT / "LICENSE").read_bytes()
    assert len(metadata.get_payload()) > 500, "the README is the page of the dist"


def test_mtrun_says_what_to_install_for_an_adapter_that_is_missing(environment: Callable[..., Path]) -> None:
    mtrun = environment("mtrun", "mt-backbones-swin", "mt-datasets") / "mtrun"
    refused = run(mtrun, "adapter=mtlora")
    assert refused.returncode == 2, refused.stdout + refused.stderr
    assert "pip install mt-adapters-mtlora" in refused.stderr


def test_mtrun_finds_an_adapter_once_it_is_installed(environment: Callable[..., Path]) -> None:
    mtrun = environment("mtrun", "mt-backbones-swin", "mt-datasets", "mt-adapters-mtlora") / "mtrun"
    tasks = "tasks=[semseg,human_parts,saliency,normals]"
    command = ("params", "adapter=mtlora", "adapter.rank=16", "backbone=swin_tiny", "dataset=pascal", tasks, "--json")
    counted = run(mtrun, *command)
    assert counted.returncode == 0, counted.stderr
    assert json.loads(counted.stdout)["trainable"] == 4_953_146  # Agiza et al., table 1


def _import_name(dist: str) -> str:
    return dist.replace("-", "_")


def _tests(dist: str) -> Path:
    """A stranger's beside the plugin, ours in `tests/` under the import name without `mt_`."""
    own = DISTS[dist] / "tests"
    return own if own.is_dir() else ROOT / "tests" / _import_name(dist).removeprefix("mt_")


def _metadata(wheel: zipfile.ZipFile) -> Message:
    name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return email.message_from_bytes(wheel.read(name))
