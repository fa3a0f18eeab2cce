"""Folds an adapter into plain weights: one task, at exactly the cost of the frozen backbone."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .adapter import SiteModule, StreamModule
from .attachment import Attachment, attach, put
from .backbone import Encoder
from .errors import MergeError
from .frozen import Frozen


@dataclass(frozen=True)
class Merged:
    """A plain encoder for one task, and what was done to get it.

    Attributes:
        encoder: the plain encoder; its forward has a single stream.
        folded: paths of the sites whose delta went into their weight.
        largest: the largest absolute change of a weight.
    """

    encoder: Encoder
    folded: tuple[str, ...]
    largest: float


def merge(attachment: Attachment, task: str) -> Merged:
    """Fold the adapter into a copy of its encoder, for one task; the adapted encoder is left as it is.

    Raises:
        MergeError: if a site's change is not a change of weight, saying which.
        ValueError: if the task is unknown.
    """
    if task not in attachment.tasks:
        raise ValueError(f"cannot merge task {task!r}: attached for {list(attachment.tasks)}")
    if found := obstacles(attachment, task):
        first, *others = found
        more = f" (and {len(others)} sites more)" if others else ""
        raise MergeError(
            f"{type(attachment.encoder.get_submodule(first)).__name__} at {first} cannot be merged for task {task!r}: "
            f"{found[first]}{more}"
        )
    encoder = copy.deepcopy(attachment.encoder)
    folded = {path: _fold(encoder, path, task) for path in attachment.replaced}
    attach(Frozen(), encoder, [task])
    return Merged(encoder, tuple(folded), max(folded.values(), default=0.0))


def obstacles(attachment: Attachment, task: str) -> dict[str, str]:
    """The sites that cannot be folded for a task, and why: path -> reason. Empty where everything can."""
    modules = {path: attachment.encoder.get_submodule(path) for path in attachment.replaced}
    return {
        path: getattr(module, "unmergeable", "") or "it is not a change of weight"
        for path, module in modules.items()
        if _delta(module, task) is None
    }


def fold_shared(attachment: Attachment) -> tuple[str, ...]:
    """Fold, in place, every site that changes its weight in the same way for all tasks; the others stay streamed.

    Returns:
        The paths that were folded.
    """
    encoder, task = attachment.encoder, attachment.tasks[0]
    modules = {path: encoder.get_submodule(path) for path in attachment.replaced}
    folded = tuple(path for path, module in modules.items() if _is_shared_delta(module, task))
    for path in folded:
        _fold(encoder, path, task)
    attachment.replaced = tuple(path for path in modules if path not in folded)
    return folded


def _is_shared_delta(module: nn.Module, task: str) -> bool:
    return isinstance(module, SiteModule) and not isinstance(module, StreamModule) and module.delta(task) is not None


def _delta(module: nn.Module, task: str) -> Tensor | None:
    """What to add to the weight of the module's base, if it is a change of weight."""
    if not isinstance(module, SiteModule) or not isinstance(getattr(module.base, "weight", None), Tensor):
        return None
    return module.delta(task)


@torch.no_grad()
def _fold(encoder: nn.Module, path: str, task: str) -> float:
    """Put the base back with its delta; the largest change. Summed in float64, so that rounding happens once."""
    module = encoder.get_submodule(path)
    delta, weight = _delta(module, task), module.get_parameter("base.weight")
    assert delta is not None
    weight.copy_(weight.double() + delta.double())
    put(encoder, path, module.get_submodule("base"))
    return float(delta.abs().max())
