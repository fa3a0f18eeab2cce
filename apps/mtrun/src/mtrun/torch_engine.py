"""The single-process engine: plain PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from mt_core.artefact import check_trained, load_trained, trained_state
from mt_core.dataset import Batch
from mt_core.errors import ConfigError
from mt_core.model import Objective

from .averages import Average
from .balancers import Balancer
from .balancing import balanced_gradients, split_parameters
from .engine import Engine, StepResult
from .finite import step_result
from .optimizers import build_optimizer
from .ranks import Ranks
from .recipe import TrainerOptions
from .stepping import (
    autocast,
    balanced,
    kept_of,
    learn,
    passes,
    put_back,
    refuse_strangers,
    restored_if_refused,
    trainable,
    under,
    with_head,
)


@dataclass
class TorchEngine(Engine):
    """One process on one device."""

    def refuse(self, options: TrainerOptions, world: int) -> None:
        if world > 1:
            raise ConfigError(
                f"engine=torch is one process, and there are {world} ranks; take engine=deepspeed, which is for several"
            )

    def prepare(
        self, objective: Objective, options: TrainerOptions, device: torch.device, ranks: Ranks, balancer: Balancer
    ) -> None:
        self.objective, self.options, self.device = objective, options, device
        self.ranks, self.balancer = ranks, balancer
        model = objective.model
        self.parameters = trainable(objective)
        self.split = split_parameters(self.parameters, list(model.tasks))
        self.buffers = {name: x for name, x in trained_state(model).items() if name not in self.parameters}
        self.optimizer = build_optimizer(self.parameters, options, device)
        self.average = None if options.ema is None else Average(trained_state(model), options.ema)
        self.passes = passes(list(model.tasks), options.tasks_per_pass)
        model.encoder.checkpointing = options.checkpointing
        if options.compile:
            model.compile()

    def step(self, step: int, batches: Sequence[Batch], rate: float) -> StepResult:
        self.objective.train()
        self.optimizer.zero_grad(set_to_none=True)
        with restored_if_refused(self.buffers):
            losses = [self._gradients(step, batch.to(self.device), 1 / len(batches)) for batch in batches]
            norm = get_total_norm([p.grad for p in self.parameters.values() if p.grad is not None])
            result = step_result(step, batches, losses, norm, self.objective, self.ranks, self._culprits)
        if self.options.clip is not None:
            clip_grads_with_norm_(self.parameters.values(), self.options.clip, norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        learn(self.balancer, self.objective, result, step)
        if self.average is not None:
            self.average.update()
        return result

    @contextmanager
    def averaged(self) -> Iterator[None]:
        if self.average is None:
            yield
            return
        live = self.average.live
        kept = {name: x.clone() for name, x in live.items()}
        try:
            _copy(self.average.values, live)
            yield
        finally:
            _copy(kept, live)

    @torch.no_grad()
    def logits(self, images: Tensor) -> dict[str, Tensor]:
        with autocast(self.device, self.options.precision):
            return self.objective.model(images)  # type: ignore[no-any-return]

    def state(self) -> dict[str, Tensor]:
        return trained_state(self.objective.model) if self.average is None else dict(self.average.values)

    def snapshot(self) -> dict[str, Tensor]:
        found = with_head("trained", trained_state(self.objective.model))
        for name, parameter in self.parameters.items():
            found |= {f"optimizer/{key}/{name}": x for key, x in self.optimizer.state.get(parameter, {}).items()}
        found |= kept_of(self.balancer)
        if self.average is not None:
            found |= with_head("average", self.average.values)
            found["average_updates"] = torch.tensor(self.average.updates)
        return found

    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        refuse_strangers(snapshot, self.parameters, trained_state(self.objective.model))
        check_trained(trained_state(self.objective.model), under("trained", snapshot), "the saved state")
        put_back(self.balancer, snapshot)
        load_trained(self.objective.model, under("trained", snapshot), "the saved state")
        for path, value in under("optimizer", snapshot).items():
            key, _, name = path.partition("/")
            parameter = self.parameters[name]
            self.optimizer.state[parameter][key] = value.to(parameter.device, copy=True)
        if self.average is not None:
            self.average.restart(under("average", snapshot), int(snapshot.get("average_updates", 0)))

    def _gradients(self, step: int, batch: Batch, share: float) -> dict[str, Tensor]:
        """Add a batch's share of the gradient, a few tasks at a time; the losses of all of them."""
        model = self.objective.model
        losses: dict[str, Tensor] = {}
        for tasks in self.passes:
            if len(self.passes) > 1:
                model.select(tasks)
            with autocast(self.device, self.options.precision):
                terms, parts = self.objective.terms(batch, share=1 / len(self.passes))
            if self.balancer.jacobian:
                balanced_gradients(terms, *self.split, self.balancer, self.ranks.sum, step)
            else:
                (share * balanced(terms, self.objective, self.balancer)).backward()
            losses |= parts
        if len(self.passes) > 1:
            model.select(model.tasks)
        return losses

    def _culprits(self) -> list[str]:
        return [n for n, p in self.parameters.items() if p.grad is not None and not bool(p.grad.isfinite().all())]


@torch.no_grad()
def _copy(values: Mapping[str, Tensor], live: Mapping[str, Tensor]) -> None:
    for name, x in live.items():
        x.copy_(values[name])
