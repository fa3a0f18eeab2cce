"""Gradients of several tasks, one by one, and what a balancer makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from mt_core.adapter import private_tasks
from mt_core.errors import ConfigError

from .balancers import Balancer
from .recipe import TrainerOptions

PENALTY = "penalty"  # the name of the term that is no task's

P = TypeVar("P", bound=Tensor)


def split_parameters(parameters: Mapping[str, P], tasks: Sequence[str]) -> tuple[dict[str, P], dict[str, P]]:
    """The parameters that several tasks share, and those that are private to one task, by their names.

    What belongs to several tasks but not to all counts as shared.
    """
    alone = {name for name in parameters if len(private_tasks(name, tasks)) == 1 < len(tasks)}
    shared = {name: x for name, x in parameters.items() if name not in alone}
    return shared, {name: x for name, x in parameters.items() if name in alone}


def refuse(
    name: str, balancer: Balancer, options: TrainerOptions, *, stage: int, tasks: Sequence[str], shared: int
) -> None:
    """Refuse a balancer of gradients where it would not be right.

    Args:
        name: of the balancer.
        balancer: with its options.
        options: of the run.
        stage: of ZeRO; 0 for a single process.
        tasks: that are trained.
        shared: how many trainable parameters several of them share (see `split_parameters`).

    Raises:
        ConfigError: if it cannot be right.
    """
    if not balancer.jacobian:
        return
    why = f"balancer={name} takes each task's gradient apart"
    others = "balancer=fixed, uncertainty and dwa do not"
    if len(tasks) < 2:
        raise ConfigError(f"{why} and needs two tasks or more to balance, not {', '.join(tasks)}; use balancer=fixed")
    if shared == 0:
        raise ConfigError(
            f"{why} on the parameters that tasks share, but the adapter shares none: every trainable parameter is "
            f"private to one task; choose another adapter, or a balancer of losses: {others} need shared parameters"
        )
    if stage > 0:
        raise ConfigError(
            f"{why}, in several backward passes for one step, which ZeRO cannot partition: with engine.stage={stage} "
            f"the result would be wrong; use engine.stage=0, or a balancer of losses: {others} need several passes"
        )
    if options.accumulate > 1:
        raise ConfigError(
            f"{why} for one batch; gradients accumulated over trainer.accumulate={options.accumulate} batches would be "
            f"balanced one batch at a time; use trainer.accumulate=1 and a larger trainer.batch_size or more ranks"
        )
    if options.compile:
        raise ConfigError(
            f"{why}, going through a pass backward several times; what trainer.compile=true makes keeps what that "
            f"needs for one time only; use trainer.compile=false"
        )
    if options.tasks_per_pass is not None and options.tasks_per_pass < len(tasks):
        raise ConfigError(
            f"{why} and needs all {len(tasks)} tasks in one forward pass; trainer.tasks_per_pass="
            f"{options.tasks_per_pass} splits them; use trainer.tasks_per_pass=null, and trainer.checkpointing=true "
            f"where memory is short"
        )


def balanced_gradients(
    terms: Mapping[str, Tensor],
    shared: Mapping[str, nn.Parameter],
    private: Mapping[str, nn.Parameter],
    balancer: Balancer,
    reduce: Callable[[Tensor], Tensor],
    step: int,
) -> None:
    """Add a step's gradient to `.grad` of the parameters, the tasks balanced; one backward pass for each term.

    Shared parameters get `balancer.combine` of the (K, P) matrix of the tasks' gradients; a task that does not reach
    one has zeros there. Parameters private to a task get the gradient of its loss, times the balancer's weight of the
    task. The gradient of the penalty is added to both as it is. What no term reaches keeps its `.grad`.

    Args:
        terms: the loss of each task, in the balancer's order, and maybe "penalty": scalars with their graphs, of which
            no further use can be made. The sum over ranks of a term is what is minimised: each rank gives its share.
        shared: parameters that several tasks share, by name.
        private: parameters that belong to one task, which their names tell (see `split_parameters`).
        balancer: started.
        reduce: sums a tensor over all ranks, in place; the identity in a single process. Every rank calls it as
            often, with tensors of the same sizes in the same order.
        step: the step that is being taken, from 1.
    """
    tasks = [name for name in terms if name != PENALTY]
    order = [PENALTY, *tasks] if PENALTY in terms else tasks  # the last task's pass frees the trunk's graph
    weights = dict(zip(tasks, balancer.weights().tolist(), strict=True))
    owners = {name: private_tasks(name, tasks)[0] for name in private}
    common, own = _Columns(shared), _Columns(private)
    matrix, vector = common.zeros(len(order)), own.zeros()
    for row, term in zip(matrix, order, strict=True):
        wanted = {**shared, **{name: p for name, p in private.items() if term in (owners[name], PENALTY)}}
        retain = term != order[-1]
        found = torch.autograd.grad(terms[term], list(wanted.values()), retain_graph=retain, allow_unused=True)
        gradients = dict(zip(wanted, found, strict=True))
        common.add(row, gradients)
        own.add(vector, gradients, weights.get(term, 1.0))
    matrix, vector = reduce(matrix), reduce(vector) if private else vector
    direction = balancer.combine(matrix[-len(tasks) :], step)
    common.accumulate(direction + matrix[0] if PENALTY in terms else direction)
    own.accumulate(vector)


class _Columns:
    """Parameters side by side in one vector, and which of them a gradient has reached."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self.parameters, self.reached = parameters, set[str]()
        self.sizes = [p.numel() for p in parameters.values()]

    def zeros(self, *rows: int) -> Tensor:
        """(*rows, P)"""
        like = next(iter(self.parameters.values()), torch.empty(0))
        return torch.zeros(*rows, sum(self.sizes), dtype=like.dtype, device=like.device)

    def views(self, row: Tensor) -> Iterator[tuple[str, Tensor]]:
        """The part of each parameter in a vector (P,), flat."""
        yield from zip(self.parameters, row.split(self.sizes), strict=True)

    @torch.no_grad()
    def add(self, row: Tensor, gradients: Mapping[str, Tensor | None], weight: float = 1.0) -> None:
        """Add gradients, times a weight, to a vector (P,)."""
        for name, view in self.views(row):
            if (gradient := gradients.get(name)) is not None:
                self.reached.add(name)
                view.add_(gradient.flatten(), alpha=weight)

    @torch.no_grad()
    def accumulate(self, row: Tensor) -> None:
        """Add a vector (P,) to the `.grad` of the parameters that were reached."""
        for name, view in self.views(row):
            if name in self.reached:
                parameter, gradient = self.parameters[name], view.view_as(self.parameters[name])
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
