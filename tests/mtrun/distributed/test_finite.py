"""What is said of a step that cannot be taken, when several ranks have a part in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from mt_core.build import Entry, ModelSpec, build
from mt_core.dataset import Batch
from mt_core.errors import NonFiniteError
from mt_core.model import Objective
from mtrun.finite import step_result
from mtrun.ranks import Ranks

from ..toy import Toy

TASKS = tuple(task for name, task in Toy().tasks().items() if name in ("depth", "saliency"))


@dataclass(frozen=True)
class Two(Ranks):
    """The first of two ranks; what the second says is given."""

    losses: Sequence[float] = ()
    said: list[Any] = field(default_factory=list)

    def sum(self, x: Tensor) -> Tensor:
        return x.add_(torch.tensor(self.losses).view_as(x))

    def gather(self, value: Any) -> list[Any]:
        return [value, *self.said]


@pytest.fixture(scope="module")
def objective() -> Objective:
    texts = tuple(task.to_json() for task in TASKS)
    return Objective(build(ModelSpec(Entry("swin_nano"), Entry("lora"), Entry("hrnet"), texts, (32, 32))).model, {})


def batch(first: int = 0) -> Batch:
    labels = {"depth": torch.ones(2, 1, 4, 4), "saliency": torch.ones(2, 1, 4, 4)}
    return Batch([f"p{first}", f"p{first + 1}"], torch.ones(2, 3, 4, 4), labels, {})


def losses(depth: float = 1.0, saliency: float = 2.0) -> dict[str, Tensor]:
    return {"depth": torch.tensor(depth), "saliency": torch.tensor(saliency)}


def result(objective: Objective, ranks: Ranks, mine: list[dict[str, Tensor]], norm: float, *bad: str) -> Any:
    given = [batch(2 * number) for number in range(len(mine))]
    return step_result(7, given, mine, torch.tensor(norm), objective, ranks, lambda: bad)


def test_losses_add_up_over_ranks_and_are_means_over_batches(objective: Objective) -> None:
    ranks = Two(0, 2, 2, losses=[3.0, 4.0, 5.0, 6.0])
    found = result(objective, ranks, [losses(1.0, 2.0), losses(10.0, 20.0)], 0.5)
    assert found.losses == {"depth": (4 + 15) / 2, "saliency": (6 + 26) / 2}
    assert found.norm == 0.5


def test_a_loss_of_the_other_rank_ends_the_step_on_this_one_with_its_words(objective: Objective) -> None:
    ranks = Two(
        0, 2, 2, losses=[math.nan, 0.0], said=[("the loss of task depth is nan on the pictures q0, q1", ["q0"])]
    )
    with pytest.raises(NonFiniteError, match=r"^step 7: the loss of task depth is nan on the pictures q0, q1; nothing"):
        result(objective, ranks, [losses()], 1.0)


def test_what_both_ranks_have_met_is_said(objective: Objective) -> None:
    ranks = Two(0, 2, 2, losses=[math.inf, 0.0], said=[("the loss of task depth is inf on the pictures q0", ["q0"])])
    with pytest.raises(NonFiniteError, match=r"task saliency is nan on the pictures p0, p1; the loss of task depth is"):
        result(objective, ranks, [losses(1.0, math.nan)], 1.0)


def test_a_loss_whose_sum_only_overflows_is_one_of_all_pictures(objective: Objective) -> None:
    ranks = Two(0, 2, 2, losses=[3e38, 0.0], said=[("", ["q0", "q1"])])
    with pytest.raises(
        NonFiniteError, match=r"the loss depth of all ranks adds up to inf on the pictures p0, p1, q0, q1;"
    ):
        result(objective, ranks, [losses(3e38)], 1.0)


def test_a_label_that_is_not_finite_explains_a_gradient_that_is_not(objective: Objective) -> None:
    given = batch()
    given.labels["depth"][1, 0, 2, 3] = torch.inf
    with pytest.raises(
        NonFiniteError,
        match=r"not finite \(nan\) for task depth, whose label is not finite, on the pictures p1; nothing",
    ):
        step_result(7, [given], [losses()], torch.tensor(math.nan), objective, Ranks(), list)


def test_a_gradient_of_a_private_parameter_names_its_task(objective: Objective) -> None:
    ranks = Two(0, 2, 2, losses=[0.0, 0.0], said=[("", ["q0"])])
    with pytest.raises(
        NonFiniteError, match=r"not finite \(inf\) for task depth \(first in decoders\.depth\.x\), on the"
    ):
        result(objective, ranks, [losses()], math.inf, "decoders.depth.x")


def test_where_gradients_have_been_dropped_all_tasks_and_pictures_are_named(objective: Objective) -> None:
    ranks = Two(0, 2, 2, losses=[0.0, 0.0], said=[("", ["q0"])])
    with pytest.raises(
        NonFiniteError, match=r"for task depth, saliency \(first in their sum\), on the pictures p0, p1, q0"
    ):
        result(objective, ranks, [losses()], math.nan)
