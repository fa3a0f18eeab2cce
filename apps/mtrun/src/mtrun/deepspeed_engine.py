"""The engine for several processes: DeepSpeed's ZeRO, stages 0 to 3 (Rajbhandari et al., SC 2020)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from mt_core.accounting import live_parameters
from mt_core.artefact import check_trained, trained_state
from mt_core.dataset import Batch
from mt_core.distributed import synchronise_batch_norms, together
from mt_core.errors import ConfigError, NonFiniteError
from mt_core.model import Objective

from .averages import Average
from .balancers import Balancer
from .balancing import balanced_gradients, split_parameters
from .deepspeed_start import Part, deepspeed_module, image_size_of, settings, started
from .engine import Engine, StepResult
from .finite import step_result
from .optimizers import build_optimizer
from .ranks import Ranks
from .recipe import TrainerOptions
from .sharding import Piece, deal_out, pieces, whole
from .stepping import (
    autocast,
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
class DeepSpeedEngine(Engine):
    """One process per device, any number of them; each gets its part of every batch.

    Few parameters are trained, so stages 1 and 2 save little; stage 3 deals out the frozen backbone, too, and is for
    one that does not fit on a device.

    Attributes:
        stage: what is dealt out over the ranks: 0 nothing, 1 the optimiser's moments, 2 the gradients too, 3 all
            parameters too, the frozen ones included.
        offload_optimizer: keep the moments in the host's memory, from stage 1 on.
        offload_parameters: keep the dealt out parameters in the host's memory, at stage 3.
        bucket: elements that are sent at a time; null: as many as are trained, within 2^16 and 2^26.
    """

    stage: int = 0
    offload_optimizer: bool = False
    offload_parameters: bool = False
    bucket: int | None = None

    def __post_init__(self) -> None:
        if self.stage not in (0, 1, 2, 3):
            raise ConfigError(f"engine.stage={self.stage}: ZeRO has the stages 0, 1, 2 and 3")
        if self.offload_optimizer and self.stage == 0:
            raise ConfigError("engine.offload_optimizer=true needs engine.stage=1, 2 or 3: at stage 0 nothing is moved")
        if self.offload_parameters and self.stage != 3:
            raise ConfigError(f"engine.offload_parameters=true needs engine.stage=3; it is {self.stage}")
        if self.bucket is not None and self.bucket < 1:
            raise ConfigError(f"engine.bucket={self.bucket}: expected a number of elements, at least 1")

    def refuse(self, options: TrainerOptions, world: int) -> None:
        if options.batch_size % world:
            raise ConfigError(
                f"trainer.batch_size={options.batch_size} is for all ranks together, and cannot be dealt out to "
                f"{world} of them; take a multiple of {world}"
            )
        if options.compile and self.stage == 3:
            raise ConfigError(
                "trainer.compile=true at engine.stage=3: parameters that come and go cannot be compiled; take a lower "
                "stage, or leave it uncompiled"
            )
        deepspeed_module()

    def home(self, device: torch.device) -> torch.device:
        return torch.device("cpu") if self.stage == 3 else device

    def prepare(
        self, objective: Objective, options: TrainerOptions, device: torch.device, ranks: Ranks, balancer: Balancer
    ) -> None:
        deepspeed = started(device)
        model = objective.model
        self.objective, self.options, self.device = objective, options, device
        self.ranks, self.balancer = ranks, balancer
        self.parameters = trainable(objective)
        self.split = split_parameters(self.parameters, list(model.tasks))
        self.shapes = {name: torch.empty_like(x, device="meta") for name, x in trained_state(model).items()}
        self.passes = passes(list(model.tasks), options.tasks_per_pass)
        model.encoder.checkpointing = options.checkpointing
        if ranks.world > 1:
            synchronise_batch_norms(model)
        still = self.parameters.keys() - live_parameters(model, image_size_of(model))
        trained = sum(p.numel() for p in self.parameters.values())
        config = settings(self, options, device, ranks.world, len(self.passes), trained)
        part = Part(objective, device, options.precision)
        optimizer = build_optimizer(self.parameters, options, device, still)  # before shapes are gone
        if self.stage == 3:
            deepspeed.zero.Init(module=part, config_dict_or_path=config)  # each parameter by itself, never all at once
            for buffer in part.buffers():
                buffer.data = buffer.data.to(device)
        self.engine, *_ = deepspeed.initialize(model=part, optimizer=optimizer, config=config, dist_init_required=False)
        self.part, self.gather = part, deepspeed.zero.GatheredParameters
        self.pieces = pieces(self.engine, self.parameters)
        self.buffers = {name: x for name, x in trained_state(model).items() if name not in self.parameters}
        self.average = None if options.ema is None else Average(self._live(), options.ema)
        if options.compile:
            model.compile()

    def step(self, step: int, batches: Sequence[Batch], rate: float) -> StepResult:
        self.engine.train()
        for group in self.engine.optimizer.param_groups:
            group["lr"] = rate
        with restored_if_refused(self.buffers):
            losses = self._gradients(step, [batch.to(self.device) for batch in batches])
            judge = partial(self._judged, step, batches, losses)
            result = self._take_whole(judge) if self.stage == 0 else self._take_dealt_out(judge)
        learn(self.balancer, self.objective, result, step)
        if self.average is not None:
            self.average.update()
        return result

    @contextmanager
    def averaged(self) -> Iterator[None]:
        if self.average is None:
            yield
            return
        kept = {name: x.clone() for name, x in self._trained().items()}  # below stage 3 they are the model's own
        try:
            self._put(self.state())
            yield
        finally:
            self._put(kept)

    @torch.no_grad()
    def logits(self, images: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = self.engine(images)
        return found

    def state(self) -> dict[str, Tensor]:
        if self.average is None:
            return self._trained()
        values = self.average.values
        return {**values, **self._whole(lambda piece: values[piece.name])} if self.stage == 3 else dict(values)

    def snapshot(self) -> dict[str, Tensor]:
        found = with_head("trained", self._trained())
        moments = self._moments()
        keys = self._everywhere(sorted({key for state in moments.values() for key, x in state.items() if x.ndim}))
        for key in keys:
            found |= with_head(f"optimizer/{key}", self._whole(partial(self._moment, key)))
        taken = max(self.ranks.gather(max((float(s["step"]) for s in moments.values() if "step" in s), default=0.0)))
        if keys:
            found |= {f"optimizer/step/{name}": torch.tensor(taken) for name in self.parameters}
        found |= kept_of(self.balancer)
        if self.average is not None:
            found |= with_head("average", self.state())
            found["average_updates"] = torch.tensor(self.average.updates)
        return found

    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        refuse_strangers(snapshot, {name: self.shapes[name] for name in self.parameters}, self.shapes)
        trained = under("trained", snapshot)
        check_trained(self.shapes, trained, "the saved state")
        put_back(self.balancer, snapshot)
        self._put(trained)
        deal_out(self.pieces, trained, lambda piece: piece.of(_known(piece)))
        moments = under("optimizer", snapshot)
        for path in moments:
            key, _, name = path.partition("/")
            self._restore_moment(key, {name: moments[path]})
        if self.average is not None:
            self._restart(under("average", snapshot) or trained, int(snapshot.get("average_updates", 0)))

    # The parts of a step.

    def _gradients(self, step: int, batches: Sequence[Batch]) -> list[dict[str, Tensor]]:
        """Compute the gradient, on one micro-step for every batch and pass; the losses of each batch."""
        model, every = self.objective.model, len(batches) * len(self.passes)
        losses: list[dict[str, Tensor]] = []
        for number in range(every):
            batch, tasks = batches[number // len(self.passes)], self.passes[number % len(self.passes)]
            if len(self.passes) > 1:
                model.select(tasks)
            with together() if self.ranks.world > 1 else nullcontext():
                parts = self._gradient(step, batch)
            if number % len(self.passes) == 0:
                losses.append({})
            losses[-1] |= parts
            if number + 1 < every:
                self.engine.step()  # counts, and takes no step before the last
        if len(self.passes) > 1:
            model.select(model.tasks)
        return losses

    def _gradient(self, step: int, batch: Batch) -> dict[str, Tensor]:
        """Add a micro-step's part. DeepSpeed divides by their number and by that of the ranks, whose losses add up."""
        if self.balancer.jacobian:
            with autocast(self.device, self.options.precision):
                terms, found = self.objective.terms(batch)
            balanced_gradients(terms, *self.split, self.balancer, self.ranks.sum, step)
            return found
        parts: dict[str, Tensor]
        total, parts = self.engine(batch, 1 / len(self.passes), self.balancer)
        scale = 1 + 0 * total.detach()  # a loss that is not finite spoils the gradient, on whatever way it got there
        self.engine.backward(total * scale * len(self.passes) * self.ranks.world)
        return parts

    def _take_whole(self, judge: Callable[[Tensor], StepResult]) -> StepResult:
        """Stage 0: every rank has the whole gradient, and looks at it before the optimiser does."""
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        norm = get_total_norm(gradients)
        try:
            result = judge(norm)
        except NonFiniteError:
            self.engine.zero_grad()
            self.engine.micro_steps += 1
            raise
        if self.options.clip is not None:
            clip_grads_with_norm_(self.parameters.values(), self.options.clip, norm)
        self.engine.step()
        return result

    def _take_dealt_out(self, judge: Callable[[Tensor], StepResult]) -> StepResult:
        """Stages 1 to 3: DeepSpeed knows the norm, and refuses by itself a gradient that is not finite."""
        self.engine.step()
        if self.stage == 3:  # what took no part in the next step would be moved by this gradient again
            self.engine.optimizer.grad_partitions_flat_buffer.zero_()
        norm = self.engine.get_global_grad_norm() if self.engine.was_step_applied() else torch.nan
        return judge(torch.as_tensor(norm))

    def _judged(
        self, step: int, batches: Sequence[Batch], losses: Sequence[Mapping[str, Tensor]], norm: Tensor
    ) -> StepResult:
        return step_result(step, batches, losses, norm, self.objective, self.ranks, self._culprits)

    def _culprits(self) -> list[str]:
        """Nothing at the stages where the gradient has been dealt out and dropped by the time it is known to be bad."""
        return [n for n, p in self.parameters.items() if p.grad is not None and not bool(p.grad.isfinite().all())]

    # Where things are.

    def _whole(self, read: Callable[[Piece], Tensor | None]) -> dict[str, Tensor]:
        return whole(self.pieces, read, self.device, self.stage > 0 and self.ranks.world > 1)

    def _trained(self) -> dict[str, Tensor]:
        """The trained state, whole."""
        if self.stage < 3:
            return trained_state(self.objective.model)
        return {**self._whole(lambda piece: piece.of(_known(piece))), **self.buffers}

    def _live(self) -> dict[str, Tensor]:
        """What moves, for an average: at stage 3, this rank's part of it."""
        if self.stage < 3:
            return trained_state(self.objective.model)
        return {**{piece.name: piece.of(_known(piece)) for piece in self.pieces}, **self.buffers}

    @torch.no_grad()
    def _put(self, values: Mapping[str, Tensor]) -> None:
        """Give the model these weights; what the optimiser moves stays what it is."""
        for name, x in self.buffers.items():
            x.copy_(values[name])
        parameters = list(self.parameters.items())
        with self.gather([p for _, p in parameters], modifier_rank=0, enabled=self.stage == 3):
            for name, parameter in parameters:
                parameter.copy_(values[name])

    def _restart(self, values: Mapping[str, Tensor], updates: int) -> None:
        assert self.average is not None
        if self.stage == 3:
            parts = {n: x.clone() for n, x in self.average.live.items()}
            deal_out(self.pieces, values, lambda piece: parts[piece.name])
            values = {**parts, **{name: values[name] for name in self.buffers}}
        self.average.restart(values, updates)

    @property
    def _kept(self) -> dict[Tensor | None, dict[str, Tensor]]:
        """The state of PyTorch's optimiser, around which ZeRO's stands from stage 1 on, by what it moves."""
        optimizer = self.engine.optimizer
        return getattr(optimizer, "optimizer", optimizer).state  # type: ignore[no-any-return]

    def _moments(self) -> dict[Tensor, dict[str, Tensor]]:
        kept = self._kept
        return {piece.key: kept[piece.key] for piece in self.pieces if piece.key is not None and piece.key in kept}

    def _moment(self, key: str, piece: Piece) -> Tensor | None:
        found = self._kept.get(piece.key, {}).get(key)
        return None if found is None else piece.of(found)

    def _restore_moment(self, key: str, values: Mapping[str, Tensor]) -> None:
        state = self._kept
        for piece in self.pieces:
            if piece.name in values and piece.key is not None:
                if key == "step":  # a number, which is not dealt out
                    state[piece.key][key] = values[piece.name].to(piece.key.device, copy=True)
                else:
                    state[piece.key].setdefault(key, torch.zeros_like(piece.key))
        if key != "step":
            deal_out(self.pieces, values, lambda piece: piece.of(state[piece.key][key]))

    def _everywhere(self, keys: list[str]) -> list[str]:
        """The keys that any rank has: one whose pieces are all padding has none."""
        return sorted({key for found in self.ranks.gather(keys) for key in found})


def _known(piece: Piece) -> Tensor:
    assert piece.key is not None
    return piece.key
