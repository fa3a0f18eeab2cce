"""The single-process engine: plain PyTorch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from mt_core.adapter import private_tasks
from mt_core.artefact import load_trained, trained_state
from mt_core.dataset import Batch
from mt_core.errors import CheckpointError, ConfigError, NonFiniteError
from mt_core.model import Objective

from .engine import Engine, StepResult
from .optimizers import build_optimizer
from .recipe import Precision, TrainerOptions


@dataclass
class TorchEngine(Engine):
    """One process on one device."""

    def prepare(self, objective: Objective, options: TrainerOptions, device: torch.device) -> None:
        model = objective.model
        self.objective, self.options, self.device = objective, options, device
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not self.parameters:
            raise ConfigError("nothing to train: the adapter and the decoders have no parameter")
        self.buffers = {name: x for name, x in trained_state(model).items() if name not in self.parameters}
        self.optimizer = build_optimizer(self.parameters, options, device)
        self.average = None if options.ema is None else Average(trained_state(model), options.ema)
        tasks = list(model.tasks)
        size = min(options.tasks_per_pass or len(tasks), len(tasks))
        self.passes = [tasks[i : i + size] for i in range(0, len(tasks), size)]
        model.encoder.checkpointing = options.checkpointing
        if options.compile:
            model.compile()

    def step(self, step: int, batches: Sequence[Batch], rate: float) -> StepResult:
        self.objective.train()
        self.optimizer.zero_grad(set_to_none=True)
        with self._restored_on_error():
            losses = [self._gradients(batch.to(self.device), 1 / len(batches)) for batch in batches]
            gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
            norm = get_total_norm(gradients)
            result = self._finite(step, batches, losses, norm)
        if self.options.clip is not None:
            clip_grads_with_norm_(self.parameters.values(), self.options.clip, norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        if self.average is not None:
            self.average.update()
        return result

    @contextmanager
    def averaged(self) -> Iterator[None]:
        if self.average is None:
            yield
            return
        with self.average.in_place():
            yield

    def state(self) -> dict[str, Tensor]:
        return trained_state(self.objective.model) if self.average is None else dict(self.average.values)

    def snapshot(self) -> dict[str, Tensor]:
        found = {f"trained/{name}": x for name, x in trained_state(self.objective.model).items()}
        for name, parameter in self.parameters.items():
            found |= {f"optimizer/{key}/{name}": x for key, x in self.optimizer.state.get(parameter, {}).items()}
        if self.average is not None:
            found |= {f"average/{name}": x for name, x in self.average.values.items()}
            found["average_updates"] = torch.tensor(self.average.updates)
        return found

    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        moments, average = _under("optimizer", snapshot), _under("average", snapshot)
        live = trained_state(self.objective.model)
        _refuse_strangers({path.partition("/")[2]: x for path, x in moments.items()}, self.parameters)
        _refuse_strangers(average, live)
        load_trained(self.objective.model, _under("trained", snapshot), "the saved state")
        for path, value in moments.items():
            key, _, name = path.partition("/")
            parameter = self.parameters[name]
            self.optimizer.state[parameter][key] = value.to(parameter.device, copy=True)
        if self.average is not None:
            self.average.restart(average, int(snapshot.get("average_updates", 0)))

    def _gradients(self, batch: Batch, share: float) -> dict[str, Tensor]:
        """Add a batch's share of the gradient, a few tasks at a time; the losses of all of them."""
        model = self.objective.model
        losses: dict[str, Tensor] = {}
        for tasks in self.passes:
            if len(self.passes) > 1:
                model.select(tasks)
            with autocast(self.device, self.options.precision):
                total, parts = self.objective(batch, share=1 / len(self.passes))
            (share * total).backward()
            losses |= parts
        if len(self.passes) > 1:
            model.select(model.tasks)
        return losses

    def _finite(
        self, step: int, batches: Sequence[Batch], losses: Sequence[Mapping[str, Tensor]], norm: Tensor
    ) -> StepResult:
        """The step's numbers, fetched from the device at once; refuses those that are not finite."""
        names = list(losses[0])
        table = torch.stack([torch.stack([row[name].float() for name in names]) for row in losses])  # (M, K)
        *values, length = torch.cat([table.flatten(), norm.float().view(1)]).tolist()
        for i, value in enumerate(values):
            if not math.isfinite(value):
                batch, name = batches[i // len(names)], names[i % len(names)]
                what = f"the loss of task {name}" if name in self.objective.weights else f"the adapter's {name}"
                raise NonFiniteError(
                    f"step {step}: {what} is {value} on the pictures {', '.join(batch.ids)}; "
                    f"nothing was changed. {_ADVICE}"
                )
        if not math.isfinite(length):
            raise NonFiniteError(
                f"step {step}: the gradient is not finite ({length}) {self._culprits()}, on the pictures "
                f"{', '.join(name for batch in batches for name in batch.ids)}; nothing was changed. {_ADVICE}"
            )
        rows = [values[i : i + len(names)] for i in range(0, len(values), len(names))]
        means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
        return StepResult(dict(zip(names, means, strict=True)), length)

    def _culprits(self) -> str:
        """Which parameters have a gradient that is not finite, and the tasks they belong to where they are private."""
        every = list(self.objective.model.tasks)
        bad = [n for n, p in self.parameters.items() if p.grad is not None and not bool(p.grad.isfinite().all())]
        owners = [private_tasks(name, every) for name in bad]
        tasks = dict.fromkeys(task for owned in owners if len(owned) < len(every) for task in owned)
        return f"for task {', '.join(tasks or every)} (first in {bad[0] if bad else 'their sum'})"

    @contextmanager
    def _restored_on_error(self) -> Iterator[None]:
        """A forward pass moves the statistics of batch norms; they are put back when the step is refused."""
        before = {name: x.clone() for name, x in self.buffers.items()}
        try:
            yield
        except NonFiniteError:
            self.optimizer.zero_grad(set_to_none=True)
            for name, x in self.buffers.items():
                x.copy_(before[name])
            raise


_ADVICE = "Lower trainer.lr, lengthen trainer.warmup, set trainer.clip, or look at these pictures."


class Average:
    """An exponential moving average of a trained state; early on it forgets faster, so that it leaves the start.

    Args:
        live: tensors that share their memory with the model.
        decay: the share of the old average that stays at each update.
    """

    def __init__(self, live: Mapping[str, Tensor], decay: float) -> None:
        self.live, self.decay, self.updates = live, decay, 0
        self.values = {name: x.clone() for name, x in live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the live values."""
        self.updates += 1
        weight = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, x in self.live.items():
            if x.is_floating_point():
                self.values[name].lerp_(x, weight)
            else:
                self.values[name].copy_(x)

    @torch.no_grad()
    def restart(self, values: Mapping[str, Tensor], updates: int) -> None:
        """Go on from an average that was kept before; from the live values where there was none."""
        self.updates = updates
        for name, x in self.live.items():
            self.values[name].copy_(values.get(name, x))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within, the model has the averaged values."""
        kept = {name: x.clone() for name, x in self.live.items()}
        try:
            self._put(self.values)
            yield
        finally:
            self._put(kept)

    @torch.no_grad()
    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, x in self.live.items():
            x.copy_(values[name])


def _under(head: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `head/`, without it."""
    return {name.removeprefix(f"{head}/"): x for name, x in tensors.items() if name.startswith(f"{head}/")}


def _refuse_strangers(found: Mapping[str, Tensor], known: Mapping[str, Tensor]) -> None:
    for name, x in found.items():
        if name not in known or (x.ndim and x.shape != known[name].shape):
            raise CheckpointError(f"the saved state holds {name} {tuple(x.shape)}, which this model does not have")


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The context of a forward pass."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision is Precision.bf16)
