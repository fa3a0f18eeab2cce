"""The help and the list of plugins: what they say, and that they cost nothing."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from enum import Enum

import pytest

from mt_core.hookspecs import hookimpl
from mtrun import __version__, config
from mtrun.docs import attributes, options_of
from mtrun.verbs import VERBS

from .conftest import Mtrun, plugin

HEAVY = {"torch", "hydra", "timm", "omegaconf", "numpy"}


@pytest.mark.parametrize(
    "words", [["--help"], ["train", "--help"], ["eval", "-h"], ["plugins", "list"], ["plugins", "list", "--json"]]
)
def test_help_and_lists_import_nothing_heavy(words: list[str]) -> None:
    code = f"import sys; from mtrun.cli import main; assert main({words!r}) == 0; print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not HEAVY & set(done.stderr.split())


def test_help_lists_verbs_groups_and_what_is_installed(mtrun: Mtrun) -> None:
    text = mtrun("--help").out
    for word in (*VERBS, "mtlora", "swin_tiny", "hrnet", "toy", "demo", "paper/mtlora_pascal", "--multirun"):
        assert word in text


def test_the_version_is_ours(mtrun: Mtrun) -> None:
    assert mtrun("--version").out == f"mtrun {__version__}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_shows_its_examples(mtrun: Mtrun, verb: str) -> None:
    text = mtrun(verb, "--help").out
    assert all(example in text for example in VERBS[verb].examples)


def test_help_shows_every_option_with_its_default(mtrun: Mtrun) -> None:
    text = mtrun("train", "--help").out
    for line in ("trainer.lr=0.0005", "trainer.betas=[0.9,0.999]", "augment.zoom=null", "loss.weights={}", "seed=0"):
        assert line in text
    assert 'checkpoint=""' in mtrun("eval", "--help").out


@pytest.mark.parametrize("cls", [config.TrainConfig, config.EvalConfig, config.PredictConfig])
def test_every_option_is_documented(cls: type) -> None:
    for option in options_of(cls):
        nested = option.default if hasattr(option.default, "__dataclass_fields__") else None
        assert option.help or nested is not None, f"{cls.__name__}.{option.name}"
        if nested is not None:
            assert all(inner.help for inner in options_of(type(nested))), option.name


class Mode(Enum):
    fast = 1


@dataclass
class Documented:
    """A class.

    More about it.

    Attributes:
        size, other: two of them,
            on two lines.
        mode: one.

    Raises:
        ValueError: not an option.
    """

    size: int
    other: float = 0.5
    mode: Mode = Mode.fast
    sides: tuple[int, ...] = (1, 2)


def test_documentation_is_read_from_the_docstring() -> None:
    assert attributes(Documented) == {
        "size": "two of them, on two lines.",
        "other": "two of them, on two lines.",
        "mode": "one.",
    }
    shown = {option.name: option.shown for option in options_of(Documented)}
    assert shown == {"size": "(needed)", "other": "0.5", "mode": "fast", "sides": "[1,2]"}


def test_plugins_are_listed_with_the_dist_they_come_from(mtrun: Mtrun) -> None:
    found = mtrun("plugins", "list", "--json").json
    assert found["adapters"]["mtlora"].startswith("mt-adapters-mtlora ")
    assert found["datasets"]["toy"] == "toy 1.0"
    assert "torch" in found["engines"]
    text = mtrun("plugins").out
    assert "mtlora" in text
    assert "mt-adapters-mtlora" in text


def test_a_plugin_is_shown_with_its_options(mtrun: Mtrun) -> None:
    text = mtrun("plugins", "show", "mtlora").out
    assert "adapter.sites" in text
    assert "list[str]" in text
    assert "[qkv,proj,fc1,fc2]" in text
    shown = mtrun("plugins", "show", "backbone", "swin_tiny", "--json").json
    assert shown["options"]["features"]["default"] == "auto"
    assert shown["options"]["drop_path"]["help"].startswith("stochastic depth")
    assert shown["class"] == "mt_backbones_swin.swin:SwinTiny"
    assert mtrun("plugins", "show", "tasks", "depth", "--json").json["kind"] == "tasks"


class Twice:
    @hookimpl
    def mt_datasets(self) -> dict[str, str]:
        return {"mtlora": "nowhere:Nothing"}


def test_plugins_refuses_what_it_does_not_know(mtrun: Mtrun) -> None:
    for words, message in (
        (("list", "all"), "expected mtrun plugins list"),
        (("show", "mtlor"), "did you mean 'mtlora'?"),
        (("show", "adapter", "nothing"), "adapter 'nothing' is not installed"),
        (("show", "wheel", "mtlora"), "unknown kind 'wheel'"),
    ):
        outcome = mtrun("plugins", *words)
        assert outcome.code == 2
        assert message in outcome.err
    with plugin(Twice(), "twice"):
        outcome = mtrun("plugins", "show", "mtlora")
    assert outcome.code == 2
    assert "'mtlora' is in adapters and datasets; say which: mtrun plugins show adapter mtlora" in outcome.err
