"""TGLoRA: where the pairs go, how large they are, and which tasks share them (Gangwar et al., sections 3 and 4.3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum, auto
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from mt_core.adapter import Adapter
from mt_core.errors import ConfigError, DataError
from mt_core.low_rank import SharedLoRA
from mt_core.planning import PlanningAdapter
from mt_core.site import Role, Site
from mt_core.streams import Streams

from . import budget, grouping
from .drawing import as_picture
from .lora import GroupedLoRA
from .plan import Plan, as_text
from .similarity import measure

if TYPE_CHECKING:
    from PIL.Image import Image

    from mt_core.dataset import Batch
    from mt_core.model import MultiTaskModel

FIXED = 4  # rank per task in the last stage from four tasks on, whatever `rank` (section 4.3; PASCAL)


class Train(StrEnum):
    """Which layers are trained (section 4.3)."""

    attn = auto()
    attn_mlp = auto()
    attn_mlp_others = auto()


ATTENTION = (Role.qkv, Role.q, Role.kv, Role.proj)
MLP = (Role.fc1, Role.fc2)
LAYERS = {Train.attn: ATTENTION, Train.attn_mlp: ATTENTION + MLP, Train.attn_mlp_others: ATTENTION + MLP}
OTHERS = (Role.patch_embed, Role.norm, Role.merge, Role.pos_bias)

_Tree = Sequence[Sequence[Sequence[str]]]  # stage -> groups -> tasks


@dataclass
class TGLoRA(PlanningAdapter):
    """Low-rank updates along a tree: all tasks share them in the first stage, and groups of tasks split going deeper.

    A group has a stream and, in every adapted layer, a pair of its own, of a rank in proportion to its tasks. Which
    tasks go together is what the plan finds out. Without one, tasks are taken as they come: each split takes the last
    task off the first group. Defaults are the paper's best; the budgets are ours.

    Attributes:
        rank: of all pairs of a layer together, r; a group has floor(r / T) for each of its tasks.
        train: `attn` (qkv or q and kv, proj), `attn_mlp` (and fc1, fc2), or `attn_mlp_others`: besides, patch
            embedding, norms, patch merging and position biases are trained as they are, shared by all groups.
        groups: how many groups each stage has. None: the paper's rule, one for each task in the last stage, one fewer
            in each stage before, one in the first (1, 2, 3, 4 for four tasks; 1, 1, 2, 3 for three).
        last_rank: rank for each task in the last of several stages. None: as the paper's counts show, 4 whatever `rank`
            for four tasks or more (PASCAL), the same share as in every stage for fewer (NYUD).
        scale: the factor of every low-rank term (a plain factor, not divided by the rank).
        dropout: on the input of every low-rank term.
        budget_gmacs: let the plan take the most groups whose GMACs, as the paper counts them, are within this.
        budget_params: let the plan take the largest rank, up to `rank`, with which no more parameters train than this,
            decoders included. Groups do not change their number.
    """

    rank: int = 64
    train: Train = Train.attn_mlp_others
    groups: list[int] | None = None
    last_rank: int | None = None
    scale: float = 4.0
    dropout: float = 0.05
    budget_gmacs: float | None = None
    budget_params: float | None = None

    usual_decoder: ClassVar[str] = "hrnet"

    def __post_init__(self) -> None:
        self.tree: _Tree | None = None  # what a plan says; no option
        if self.rank < 1 or (self.last_rank is not None and self.last_rank < 1):
            raise ConfigError(f"rank={self.rank} last_rank={self.last_rank}: expected positive numbers")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout={self.dropout}: expected a probability below 1")
        for name, value in (("budget_gmacs", self.budget_gmacs), ("budget_params", self.budget_params)):
            if value is not None and not value > 0:
                raise ConfigError(f"{name}={value}: expected a positive number, or null for no budget")
        if self.groups is None:
            return
        if not self.groups or self.groups[0] < 1 or self.groups != sorted(self.groups):
            raise ConfigError(f"groups={self.groups}: expected a number for each stage, from 1, none less than before")
        if self.budget_gmacs is not None:
            raise ConfigError(f"groups={self.groups} and budget_gmacs={self.budget_gmacs:g} exclude each other")

    def adapt(self, site: Site, module: nn.Module, streams: Streams) -> nn.Module | None:
        if self.train is Train.attn_mlp_others and site.role in OTHERS:
            return module
        if site.role not in LAYERS[self.train] or not isinstance(module, nn.Linear):
            return None
        groups = self._groups(site, streams.tasks)
        ranks = [len(group) * self._rank_of_a_task(site, len(streams.tasks)) for group in groups]
        if len(groups) == 1:
            return SharedLoRA(module, ranks[0], self.scale, self.dropout)
        return GroupedLoRA(module, streams, streams.split(groups), ranks, self.scale, self.dropout)

    def plan(self, model: MultiTaskModel, samples: Iterable[Batch]) -> dict[str, Any]:
        tasks, stages = list(model.tasks), 1 + max(site.stage for site in model.encoder.sites())
        batches = iter(samples)
        first = next(batches, None)
        if first is None:
            raise DataError("no samples to measure the similarity of the tasks on; give at least one")
        height, width = first.images.shape[-2:]
        counts = self._planned_counts(model, stages, (height, width))
        rank = self._planned_rank(model, counts)
        measured = measure(model, chain([first], batches))
        similarity = measured.similarity.tolist()
        partitions = grouping.tree(similarity, counts)
        return {
            "tasks": tasks,
            "similarity": similarity,
            "examples": measured.examples,
            "pairs": measured.pairs.tolist(),
            "groups": [[[tasks[i] for i in group] for group in partition] for partition in partitions],
            "scores": [grouping.total(partition, similarity) for partition in partitions],
            "exact": len(tasks) <= grouping.EXACT,
            **({} if rank is None else {"rank": rank}),
        }

    def planned(self, plan: Mapping[str, Any], tasks: Sequence[str]) -> Adapter:
        found = Plan.read(plan)
        if set(found.tasks) != set(tasks):
            raise ConfigError(
                f"plan of tglora: made for tasks {', '.join(found.tasks)}, not for {', '.join(tasks)}; make another"
            )
        if self.groups is not None and self.groups != found.counts:
            raise ConfigError(
                f"groups={self.groups}, but the plan has {found.counts}; leave groups away, or plan again"
            )
        follower = replace(self, rank=found.rank or self.rank)
        follower.tree = found.groups
        return follower

    def describe(self, plan: Mapping[str, Any]) -> str:
        return as_text(Plan.read(plan))

    def draw(self, plan: Mapping[str, Any]) -> Image:
        return as_picture(Plan.read(plan))

    def _groups(self, site: Site, tasks: Sequence[str]) -> Sequence[Sequence[str]]:
        """The groups of a site's stage."""
        if self.tree is not None:
            if len(self.tree) != site.stages:
                raise ConfigError(
                    f"the plan of tglora is for {len(self.tree)} stages, this backbone has {site.stages}; "
                    f"make a plan for this backbone"
                )
            return self.tree[site.stage]
        if self.budget_gmacs is not None or self.budget_params is not None:
            raise ConfigError("a budget is kept by the plan, and there is none; make one (mtrun plan), give plan.file")
        counts = self._counts(len(tasks), site.stages)
        return [[tasks[i] for i in group] for group in grouping.in_order(len(tasks), counts)[site.stage]]

    def _counts(self, tasks: int, stages: int) -> list[int]:
        """How many groups each stage has, if no plan says so."""
        if self.groups is None:
            return grouping.paper_counts(tasks, stages)
        if len(self.groups) != stages or self.groups[-1] > tasks:
            raise ConfigError(
                f"groups={self.groups}: expected a number for each of the backbone's {stages} stages, "
                f"at most {tasks}, the number of tasks"
            )
        return self.groups

    def _rank_of_a_task(self, site: Site, tasks: int) -> int:
        """The rank that each task brings to its group."""
        last = site.stage + 1 == site.stages
        if last and self.last_rank is not None:
            return self.last_rank
        if last and site.stage and tasks >= FIXED:  # a single stage is the first as well
            return FIXED
        return self._share(tasks)

    def _share(self, tasks: int) -> int:
        """The rank that a task has where none is fixed."""
        if self.rank < tasks:
            raise ConfigError(f"rank={self.rank} for {tasks} tasks: each needs a rank of 1 at least")
        return self.rank // tasks

    def _planned_counts(self, model: MultiTaskModel, stages: int, image_size: tuple[int, int]) -> list[int]:
        """How many groups each stage has, within the budget of GMACs if there is one."""
        tasks = len(model.tasks)
        if self.budget_gmacs is None:
            return self._counts(tasks, stages)
        free = replace(self, budget_gmacs=None, budget_params=None)
        chosen = [replace(free, groups=counts) for counts in budget.few_counts(tasks, stages)]
        costs = [budget.published_gmacs(budget.adapted(model, choice), image_size) for choice in chosen]
        return budget.most_groups(budget.LinearCost(costs), tasks, stages, self.budget_gmacs)

    def _planned_rank(self, model: MultiTaskModel, counts: list[int]) -> int | None:
        """The rank within the budget of parameters; None if there is none."""
        if self.budget_params is None:
            return None
        tasks = len(model.tasks)
        free = replace(self, budget_gmacs=None, budget_params=None, groups=counts)
        chosen = [replace(free, rank=share * tasks) for share in (1, 2)]
        one, two = (budget.trainable(budget.adapted(model, choice)) for choice in chosen)
        return tasks * budget.largest_share(one, two, self._share(tasks), self.budget_params)
