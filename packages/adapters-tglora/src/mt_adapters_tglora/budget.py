"""How many groups, and what rank, fit a budget. Ours: the paper leaves the choice open (section 6)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations_with_replacement, pairwise

from mt_core.accounting import gmacs, shapes_of
from mt_core.adapter import Adapter
from mt_core.attachment import attach
from mt_core.errors import ConfigError
from mt_core.model import MultiTaskModel


def adapted(model: MultiTaskModel, adapter: Adapter) -> MultiTaskModel:
    """A copy of the model with an adapter in its plain encoder, and decoders that train: shapes only."""
    shapes = shapes_of(model)
    shapes.decoders.requires_grad_(True)
    shapes.adapter, shapes.attachment = adapter, attach(adapter, shapes.encoder, tuple(shapes.tasks))
    return shapes


def trainable(model: MultiTaskModel) -> int:
    """How many parameters train, decoders included."""
    return sum(x.numel() for x in model.parameters() if x.requires_grad)


def published_gmacs(model: MultiTaskModel, image_size: tuple[int, int]) -> float:
    """GMACs of all tasks for one picture, in the convention that the paper prints (Table 3)."""
    return gmacs(model, image_size)["published"]


class LinearCost:
    """The cost of group counts, from the costs of a few: every module runs once for each group of its stage.

    Args:
        costs: of [1, 1, 1], [1, 1, 2], [1, 2, 2], [2, 2, 2]: in so many of the last stages two groups, before one.
    """

    def __init__(self, costs: list[float]) -> None:
        self.least = costs[0]
        self.more = [after - before for before, after in pairwise(costs)][::-1]  # by stage

    def __call__(self, counts: tuple[int, ...]) -> float:
        return self.least + sum(more * (count - 1) for more, count in zip(self.more, counts, strict=True))


def few_counts(tasks: int, stages: int) -> list[list[int]]:
    """The group counts whose costs determine all others; see `LinearCost`. One task cannot be split."""
    return [[1] * (stages - split) + [min(2, tasks)] * split for split in range(stages + 1)]


def most_groups(cost: LinearCost, tasks: int, stages: int, budget: float) -> list[int]:
    """The counts with the most groups within a budget of GMACs; of equals, those with the groups deeper.

    Raises:
        ConfigError: if a single group in every stage is too much.
    """
    if cost.least > budget:
        raise ConfigError(
            f"budget_gmacs={budget:g}: one group in every stage already takes {cost.least:.4g} GMACs; "
            f"give at least that"
        )
    fitting = [counts for counts in nondecreasing(tasks, stages) if cost(counts) <= budget]
    return list(sorted(fitting, key=_preference)[-1])


def _preference(counts: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """More groups, then more of them in the last stage, then in the one before it, and so on."""
    return sum(counts), counts[::-1]


def nondecreasing(tasks: int, stages: int) -> Iterator[tuple[int, ...]]:
    """Every choice of group counts: 1 <= g_1 <= ... <= g_S <= T."""
    yield from combinations_with_replacement(range(1, tasks + 1), stages)


def largest_share(one: int, two: int, wanted: int, budget: float) -> int:
    """The largest rank per task, up to `wanted`, within a budget of parameters, from the counts at ranks 1 and 2.

    They are the same where every rank is fixed (a single stage with `last_rank`): then all fit, or none does.

    Raises:
        ConfigError: if rank 1 is too much.
    """
    if one > budget:
        raise ConfigError(
            f"budget_params={budget:,.0f}: rank 1 for each task already takes {one:,} parameters, decoders included; "
            f"give at least that"
        )
    return wanted if two == one else min(wanted, 1 + int((budget - one) // (two - one)))
