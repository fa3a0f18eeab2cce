"""What a plugin may contribute: the whole contract, on one screen.

A registration hook returns `{name: class}`; all answers are merged, and a name given twice is an error. The class is a
dataclass: its fields are its options, its methods the behaviour. In place of a class a plugin may give
"module:Class", which is imported when somebody asks for it: so a list of what is installed needs no import of torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from torch import Tensor

PROJECT = "mt_adapters"  # pluggy's project, and the entry-point group that plugins are found through

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def mt_backbones() -> Mapping[str, type | str]:  # type: ignore[empty-body]
    """Frozen encoders: subclasses of `mt_core.Backbone`."""


@hookspec
def mt_adapters() -> Mapping[str, type | str]:  # type: ignore[empty-body]
    """Adaptation methods: subclasses of `mt_core.Adapter`."""


@hookspec
def mt_decoders() -> Mapping[str, type | str]:  # type: ignore[empty-body]
    """Task heads: subclasses of `mt_core.Decoder`."""


@hookspec
def mt_datasets() -> Mapping[str, type | str]:  # type: ignore[empty-body]
    """Annotated pictures: subclasses of `mt_core.Dataset`."""


@hookspec
def mt_tasks() -> Mapping[str, type | str]:  # type: ignore[empty-body]
    """Kinds of prediction, with loss and colours: subclasses of `mt_core.Task`, by their `kind`."""


@hookspec(firstresult=True)
def mt_weights(uri: str) -> Mapping[str, Tensor] | None:
    """The state dict at `uri` (a backbone's `checkpoint`), or None if it is not this plugin's. First answer wins."""


@hookspec
def mt_step_end(run: Any, step: int, losses: Mapping[str, float]) -> None:
    """Called after every optimiser step with each task's loss. `run` has the folder and the configuration."""


@hookspec
def mt_eval_end(run: Any, step: int, metrics: Mapping[str, Mapping[str, float]]) -> None:
    """Called after every evaluation with `metrics[task][name]`."""
