"""What contracts are checked on (a miniature of each installed architecture), and how results are compared."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from torch import Tensor
from torch.testing import assert_close

from ..backbone import Backbone
from ..discovery import registry


@cache
def architectures() -> dict[str, type[Backbone]]:
    """A backbone of each architecture, by the first of the names that share its miniature."""
    found: dict[object, tuple[str, type[Backbone]]] = {}
    backbones = registry("backbones")
    for name in backbones:
        cls: type[Backbone] = backbones[name]
        found.setdefault(getattr(cls.miniature, "__func__", cls), (name, cls))
    return dict(found.values())


def randomise(parameters: Sequence[Tensor], std: float) -> None:
    """As if trained: move parameters off their starting values (where many updates are exactly zero)."""
    for parameter in parameters:
        parameter.data.add_(parameter.data.new_empty(parameter.shape).normal_(std=std))


def assert_alike(actual: Any, expected: Any, what: str, tolerance: float = 1e-4) -> None:
    """Compare tensors, or lists and dicts of them. Raises AssertionError that begins with `what`."""
    assert_close(actual, expected, atol=tolerance, rtol=tolerance, msg=lambda message: f"{what}: {message}")
