"""The kit's contract of tasks: for each property something that breaks it, and only it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from mt_core.losses import depth_l1
from mt_core.task import Loss
from mt_core.tasks import Depth
from mt_core.testing import TaskConformance

from .contracts import failures, properties


def with_loss(loss: Loss) -> type[Depth]:
    """Depth, with another loss."""

    class Broken(Depth):
        losses: ClassVar[Mapping[str, Loss]] = {"broken": loss}

    return Broken


def _counts_void(logits: Tensor, target: Tensor) -> Tensor:
    return depth_l1(logits, target) + (target > 0).any() * logits.abs().mean()


def _costs_one(logits: Tensor, target: Tensor) -> Tensor:
    return depth_l1(logits, target) + 1


def _lets_go_of_the_graph(logits: Tensor, target: Tensor) -> Tensor:
    return depth_l1(logits, target) if (target > 0).any() else torch.zeros(())


class Unreadable(Depth):
    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "name": self.name}


class LosesAnAxis(Depth):
    def predict(self, logits: Tensor) -> Tensor:
        return logits[:, 0]


class TakesAnEmptyLabel(Depth):
    def check(self, label: Tensor, where: str) -> None:
        self.check_values(label, where)


class PaintsVoidGrey(Depth):
    def colours(self, values: Tensor) -> Tensor:
        return torch.full((3, *values.shape[-2:]), 128, dtype=torch.uint8)


NOTHING = "test_nothing_annotated_costs_nothing"
BROKEN_TASKS: dict[str, tuple[type[Depth], str]] = {
    "a loss that counts void": (with_loss(_counts_void), "test_void_pixels_do_not_count"),
    "a loss of one for nothing": (with_loss(_costs_one), NOTHING),
    "a loss without a graph": (with_loss(_lets_go_of_the_graph), NOTHING),
    "a description that lacks fields": (Unreadable, "test_survives_json"),
    "a prediction without its channel": (LosesAnAxis, "test_predictions_are_in_the_units_of_the_label"),
    "an empty label accepted": (TakesAnEmptyLabel, "test_an_empty_annotation_is_refused"),
    "void that is not black": (PaintsVoidGrey, "test_has_colours"),
}


def task_failures(kind: type[Depth], monkeypatch: pytest.MonkeyPatch) -> set[str]:
    monkeypatch.setattr("mt_core.testing.tasks.registry", lambda _: {kind.kind: kind})  # as if it were installed
    contract = TaskConformance()
    monkeypatch.setattr(contract, "entry", kind("depth"), raising=False)
    return failures(contract, {})


def test_a_sound_task_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert task_failures(Depth, monkeypatch) == set()


@pytest.mark.parametrize(("kind", "expected"), BROKEN_TASKS.values(), ids=BROKEN_TASKS)
def test_a_broken_task_fails_what_it_breaks_and_nothing_else(
    kind: type[Depth], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert task_failures(kind, monkeypatch) == {expected}


def test_every_property_of_a_task_has_something_that_breaks_it() -> None:
    assert properties(TaskConformance) == {expected for _, expected in BROKEN_TASKS.values()}
