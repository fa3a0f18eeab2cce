"""The hooks: what a plugin that implements all of them contributes, and what it hears."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

import mt_core
from mt_core import hookspecs
from mt_core.discovery import KINDS, Plugins, load
from mt_core.hookspecs import hookimpl

from .toys import ToyBackbone, ToyDataset, ToyDecoder, ToyLoRA


class Everything:
    """A plugin with every hook."""

    def __init__(self, answer: float = 1.0) -> None:
        self.answer, self.heard = answer, list[tuple[Any, ...]]()

    @hookimpl
    def mt_backbones(self) -> Mapping[str, type | str]:
        return {"toy": ToyBackbone}

    @hookimpl
    def mt_adapters(self) -> Mapping[str, type | str]:
        return {"toy": ToyLoRA}

    @hookimpl
    def mt_decoders(self) -> Mapping[str, type | str]:
        return {"toy": ToyDecoder}

    @hookimpl
    def mt_datasets(self) -> Mapping[str, type | str]:
        return {"toy": ToyDataset}

    @hookimpl
    def mt_tasks(self) -> Mapping[str, type | str]:
        return {"toy": "mt_core.tasks:Depth"}

    @hookimpl
    def mt_weights(self, uri: str) -> Mapping[str, Tensor] | None:
        return {"a": torch.tensor(self.answer)} if uri == "toy:" else None

    @hookimpl
    def mt_step_end(self, run: Any, step: int, losses: Mapping[str, float]) -> None:
        self.heard.append((run, step, losses))

    @hookimpl
    def mt_eval_end(self, run: Any, step: int, metrics: Mapping[str, Mapping[str, float]]) -> None:
        self.heard.append((run, step, metrics))


def with_plugins(*registered: object) -> Plugins:
    plugins = load(entry_points=False)
    for i, plugin in enumerate(registered):
        plugins.manager.register(plugin, f"plugin {i}")
    plugins.manager.check_pending()
    return plugins


@pytest.mark.parametrize(
    ("kind", "cls"),
    [("backbones", ToyBackbone), ("adapters", ToyLoRA), ("decoders", ToyDecoder), ("datasets", ToyDataset)],
)
def test_a_registration_hook_contributes_classes_by_name(kind: str, cls: type) -> None:
    assert dict(with_plugins(Everything()).registry(kind)) == {"toy": cls}


def test_a_kind_of_task_may_be_contributed_by_name() -> None:
    assert with_plugins(Everything()).registry("tasks")["toy"].__name__ == "Depth"


def test_the_first_plugin_that_knows_the_weights_gives_them_and_the_others_are_not_asked() -> None:
    hook = with_plugins(Everything(answer=1.0), Everything(answer=2.0)).hook
    assert hook.mt_weights(uri="toy:") == {"a": torch.tensor(2.0)}, "pluggy asks the last one registered first"
    assert hook.mt_weights(uri="other:") is None


def test_everybody_hears_of_steps_and_evaluations() -> None:
    one, two = Everything(), Everything()
    hook = with_plugins(one, two).hook
    hook.mt_step_end(run="run", step=3, losses={"depth": 0.5})
    hook.mt_eval_end(run="run", step=4, metrics={"depth": {"rmse": 1.0}})
    assert one.heard == two.heard == [("run", 3, {"depth": 0.5}), ("run", 4, {"depth": {"rmse": 1.0}})]


def test_a_plugin_may_leave_out_arguments_it_does_not_want() -> None:
    heard = []

    class Steps:
        @hookimpl
        def mt_step_end(self, step: int) -> None:
            heard.append(step)

    with_plugins(Steps()).hook.mt_step_end(run=None, step=7, losses={})
    assert heard == [7]


def test_there_is_a_registration_hook_for_each_kind() -> None:
    assert all(hasattr(hookspecs, f"mt_{kind}") for kind in KINDS)


def test_every_public_name_of_the_package_is_there() -> None:
    assert all(getattr(mt_core, name) is not None for name in mt_core.__all__)


def test_another_name_of_the_package_is_not() -> None:
    with pytest.raises(AttributeError, match="module 'mt_core' has no attribute 'Everything'"):
        mt_core.Everything  # noqa: B018
