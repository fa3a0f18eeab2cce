"""What every engine's step is made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from mt_core.errors import CheckpointError, ConfigError, NonFiniteError
from mt_core.model import Objective

from .balancers import Balancer
from .engine import StepResult
from .recipe import Precision


def trainable(objective: Objective) -> dict[str, torch.nn.Parameter]:
    """The trainable parameters of the objective's model, by name.

    Raises:
        ConfigError: if there are none.
    """
    found = {name: p for name, p in objective.model.named_parameters() if p.requires_grad}
    if not found:
        raise ConfigError("nothing to train: the adapter and the decoders have no parameter")
    return found


def passes(tasks: list[str], size: int | None) -> list[list[str]]:
    """The tasks that go through the encoder together."""
    step = min(size or len(tasks), len(tasks))
    return [tasks[i : i + step] for i in range(0, len(tasks), step)]


def balanced(terms: Mapping[str, Tensor], objective: Objective, balancer: Balancer) -> Tensor:
    """The sum of the terms of a loss, those of tasks times the balancer's weights: ()"""
    weights = dict(zip(objective.weights, balancer.weights().tolist(), strict=True))
    return torch.stack([weights.get(name, 1.0) * term for name, term in terms.items()]).sum()


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The context of a forward pass."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision is Precision.bf16)


@contextmanager
def restored_if_refused(buffers: Mapping[str, Tensor]) -> Iterator[None]:
    """A forward pass moves the statistics of batch norms; they are put back when the step is refused."""
    before = {name: x.clone() for name, x in buffers.items()}
    try:
        yield
    except NonFiniteError:
        for name, x in buffers.items():
            x.copy_(before[name])
        raise


def learn(balancer: Balancer, objective: Objective, result: StepResult, step: int) -> None:
    """Tell the balancer of a step that was taken."""
    losses = [weight * result.losses[name] for name, weight in objective.weights.items()]
    balancer.update(torch.tensor(losses), step)


def kept_of(balancer: Balancer) -> dict[str, Tensor]:
    """What a snapshot holds of a balancer."""
    return with_head(f"balancer/{type(balancer).__name__}", balancer.state())


def put_back(balancer: Balancer, snapshot: Mapping[str, Tensor]) -> None:
    """Restore a balancer from a snapshot; where there was another, it starts anew.

    Raises:
        CheckpointError: if it is of other tasks; nothing has changed then.
    """
    if found := under(f"balancer/{type(balancer).__name__}", snapshot):
        balancer.restore(found)


def under(head: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `head/`, without it."""
    return {name.removeprefix(f"{head}/"): x for name, x in tensors.items() if name.startswith(f"{head}/")}


def with_head(head: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `under`."""
    return {f"{head}/{name}": x for name, x in tensors.items()}


def refuse_strangers(
    snapshot: Mapping[str, Tensor], parameters: Mapping[str, Tensor], live: Mapping[str, Tensor]
) -> None:
    """Refuse a snapshot whose moments or average are not a model's own.

    Args:
        snapshot: as `Engine.snapshot` gives it.
        parameters: the trainable ones, whole.
        live: the trained state, whole.

    Raises:
        CheckpointError: naming what does not belong.
    """
    moments = {path.partition("/")[2]: x for path, x in under("optimizer", snapshot).items()}
    for found, known in ((moments, parameters), (under("average", snapshot), live)):
        for name, x in found.items():
            if name not in known or (x.ndim and x.shape != known[name].shape):
                raise CheckpointError(f"the saved state holds {name} {tuple(x.shape)}, which this model does not have")
