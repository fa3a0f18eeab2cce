"""A plan of TGLoRA: tasks, their similarities, and the groups of every stage; plain values, read strictly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mt_core.errors import ConfigError

AGAIN = "make another with mtrun plan"
LARGEST = 1e9  # no cosine comes near; integers of any length compare with it, and NaN does not


@dataclass(frozen=True)
class Plan:
    """What `TGLoRA.plan` found.

    Attributes:
        tasks: in the user's order.
        similarity: (T, T), mean cosine of the tasks' gradients.
        examples: how many pictures were looked at.
        groups: of each stage, first to last: groups of task names. They only split going deeper.
        rank: the rank that fits a budget of parameters; None where none was given.
    """

    tasks: tuple[str, ...]
    similarity: tuple[tuple[float, ...], ...]
    examples: int
    groups: tuple[tuple[tuple[str, ...], ...], ...]
    rank: int | None = None

    @property
    def counts(self) -> list[int]:
        """How many groups each stage has."""
        return [len(groups) for groups in self.groups]

    @property
    def leaves(self) -> list[str]:
        """The tasks in an order in which every group of every stage stands together."""
        return sorted(self.tasks, key=lambda task: [_place(groups, task) for groups in self.groups])

    @classmethod
    def read(cls, plan: Mapping[str, Any]) -> Plan:
        """From plain values.

        Raises:
            ConfigError: if something is missing or cannot be, saying what.
        """
        tasks: Any = plan.get("tasks")
        if not _names(tasks) or len(set(tasks)) < len(tasks):
            raise ConfigError(f"plan of tglora: tasks={tasks!r}, expected names, each once; {AGAIN}")
        similarity = _square(plan.get("similarity"), len(tasks))
        examples: Any = plan.get("examples")
        rank: Any = plan.get("rank")
        if not _whole(examples) or examples < 0:
            raise ConfigError(f"plan of tglora: examples={examples!r}, expected how many pictures it is from; {AGAIN}")
        if rank is not None and not (_whole(rank) and rank > 0):
            raise ConfigError(f"plan of tglora: rank={rank!r}, expected a positive number or none; {AGAIN}")
        return cls(tuple(tasks), similarity, examples, _tree(plan.get("groups"), tasks), rank)


def _tree(stages: Any, tasks: Sequence[str]) -> tuple[tuple[tuple[str, ...], ...], ...]:
    if not isinstance(stages, (list, tuple)) or not stages:
        raise ConfigError(f"plan of tglora: groups={stages!r}, expected a list of groups for each stage; {AGAIN}")
    before: list[set[str]] = [set(tasks)]
    for number, groups in enumerate(stages, 1):
        if not isinstance(groups, (list, tuple)) or not all(_names(group) for group in groups):
            raise ConfigError(f"plan of tglora: stage {number} is {groups!r}, expected lists of task names; {AGAIN}")
        if sorted(task for group in groups for task in group) != sorted(tasks):
            raise ConfigError(
                f"plan of tglora: stage {number} groups {groups}, which is not each of {', '.join(tasks)} once; {AGAIN}"
            )
        for group in groups:
            if not any(set(group) <= larger for larger in before):
                raise ConfigError(
                    f"plan of tglora: stage {number} joins {', '.join(group)}, which the stage before keeps apart; "
                    f"groups only split going deeper"
                )
        before = [set(group) for group in groups]
    return tuple(tuple(tuple(group) for group in groups) for groups in stages)


def _square(matrix: Any, size: int) -> tuple[tuple[float, ...], ...]:
    rows = matrix if isinstance(matrix, (list, tuple)) and all(isinstance(row, (list, tuple)) for row in matrix) else []
    numbers = [x for row in rows for x in row if isinstance(x, (int, float)) and abs(x) < LARGEST]
    if [len(row) for row in rows] != [size] * size or len(numbers) != size * size:
        raise ConfigError(f"plan of tglora: similarity is {matrix!r}, expected {size} rows of {size} numbers; {AGAIN}")
    return tuple(tuple(float(x) for x in row) for row in rows)


def _names(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(name, str) for name in value)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _place(groups: Sequence[Sequence[str]], task: str) -> int:
    return next(i for i, group in enumerate(groups) if task in group)


def as_text(plan: Plan) -> str:
    """The similarities as a table, and the tree: a line for each stage, brackets around its groups."""
    width = max(map(len, plan.tasks))
    lines = [f"similarity of the tasks' gradients: mean cosine over {plan.examples} pictures", ""]
    lines.append(" ".join([" " * width, *(f"{task:>{max(len(task), 6)}}" for task in plan.tasks)]))
    for task, row in zip(plan.tasks, plan.similarity, strict=True):
        cells = [f"{value:>{max(len(name), 6)}.3f}" for name, value in zip(plan.tasks, row, strict=True)]
        lines.append(" ".join([f"{task:<{width}}", *cells]))
    lines += ["", "groups of tasks that share a path", ""]
    lines += [f"stage {number}  {_bracketed(groups, plan.leaves)}" for number, groups in enumerate(plan.groups, 1)]
    if plan.rank is not None:
        lines += ["", f"rank {plan.rank}, to fit the budget of parameters"]
    return "\n".join(lines)


def _bracketed(groups: Sequence[Sequence[str]], leaves: Sequence[str]) -> str:
    """'[ semseg   depth ][ normals ]', every task in a column of its own."""
    text = ""
    for task, following in zip(leaves, [*leaves[1:], None], strict=True):
        group = groups[_place(groups, task)]
        first, last = not text or text.endswith("]"), following not in group
        text += ("[" if first else " ") + f" {task} " + ("]" if last else " ")
    return text
