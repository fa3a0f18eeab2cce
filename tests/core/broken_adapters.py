"""Adapters that keep the contract, and for each of its properties one that breaks it, and which tests must say so."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from mt_core.adapter import Adapter, SiteModule
from mt_core.site import Role, Site
from mt_core.streams import Streams

from .toys import TaskLoRA, ToyLoRA


class Shared(SiteModule):
    """A low-rank update that all tasks share."""

    base: nn.Linear

    def __init__(self, base: nn.Linear, scale: float = 2.0) -> None:
        super().__init__(base)
        self.scale = scale
        self.a = nn.Parameter(base.weight.new_empty(2, base.in_features).normal_())
        self.b = nn.Parameter(base.weight.new_zeros(base.out_features, 2))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.base(x)) + self.scale * self.update(x)

    def update(self, x: Tensor) -> Tensor:
        return x @ self.a.T @ self.b.T

    def delta(self, task: str) -> Tensor | None:
        return self.scale * (self.b @ self.a)


@dataclass
class AtProj(Adapter):
    """Puts one module at every proj, and leaves the rest."""

    module: ClassVar[Callable[..., nn.Module]] = Shared

    def adapt(self, site: Site, module: nn.Module, streams: Streams) -> nn.Module | None:
        return type(self).module(module) if site.role is Role.proj else None


def at_proj(module: Callable[..., nn.Module]) -> Adapter:
    return cast(Adapter, type("Broken", (AtProj,), {"module": staticmethod(module)})())


def streamed(module: type[TaskLoRA]) -> Adapter:
    return cast(Adapter, type("Broken", (ToyLoRA,), {"module": module})())


class StartsElsewhere(Shared):
    def __init__(self, base: nn.Linear) -> None:
        super().__init__(base)
        self.b.data.normal_()


class TrainsTheFrozenBias(Shared):
    def __init__(self, base: nn.Linear) -> None:
        super().__init__(base)
        base.bias.requires_grad_(True)


class HasAnEmptyParameter(Shared):
    def __init__(self, base: nn.Linear) -> None:
        super().__init__(base)
        self.nothing = nn.Parameter(torch.empty(0))


class LooksAtTheWholeBatch(Shared):
    def update(self, x: Tensor) -> Tensor:
        return super().update(x - x.mean(0))

    def delta(self, task: str) -> Tensor | None:
        return None


class ReadsTheBatchFirst(TaskLoRA):
    """Takes the rows for (B * T, ...), where they are (T * B, ...)."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.fork(self.base(x))
        streams = self.fork(x).unflatten(0, (-1, len(self.tasks)))  # (B, T, ..., k)
        updates = [self.update(task, streams[:, i]) for i, task in enumerate(self.tasks)]
        return y + self.scale * torch.stack(updates, 1).flatten(0, 1)


class ForksForNothing(TaskLoRA):
    """One pair, for every stream the same."""

    def __init__(self, base: nn.Linear, streams: Streams, rank: int) -> None:
        super().__init__(base, streams, rank)
        del self.a, self.b
        self.pair = Shared(base, self.scale)
        del self.pair.base

    def update(self, task: str, x: Tensor) -> Tensor:
        return self.pair.update(x)

    def delta(self, task: str) -> Tensor | None:
        return self.pair.delta(task)


class HasADeadParameter(Shared):
    def __init__(self, base: nn.Linear) -> None:
        super().__init__(base)
        self.dead = nn.Parameter(torch.ones(()))

    def update(self, x: Tensor) -> Tensor:
        return super().update(x) + 0 * self.dead


class WritesIntoTheFrozenWeight(Shared):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.base.weight.mul_(1 + 1e-7)
        return super().forward(x)


class FirstTaskForAll(TaskLoRA):
    """Every task also gets the first one's update, though that one's name promises that it is private."""

    def update(self, task: str, x: Tensor) -> Tensor:
        first = self.full_after.tasks[0]
        return super().update(task, x) + (super().update(first, x) if task != first else 0)

    def delta(self, task: str) -> Tensor | None:
        first = self.full_after.tasks[0]
        own, shared = super().delta(task), super().delta(first)
        assert own is not None
        assert shared is not None
        return own + shared if task != first else own


class ForgetsTheScale(Shared):
    def delta(self, task: str) -> Tensor | None:
        return self.b @ self.a


class ForksUnannounced(TaskLoRA):
    """Says that one stream leaves, and gives one for each task."""

    def __init__(self, base: nn.Linear, streams: Streams, rank: int) -> None:
        super().__init__(base, streams, rank)
        self.full_after = self.full_before

    def bind(self, before: Streams, after: Streams) -> None:
        super().bind(before, before.per_task())


class AnnouncesAForkOnly(TaskLoRA):
    """Says that a stream for each task leaves, and gives the one that came."""

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.base(x)) + self.scale * self.update(self.tasks[0], x)


@dataclass
class Doubles(ToyLoRA):
    """Every reading of its options doubles one."""

    def __post_init__(self) -> None:
        self.rank *= 2


class KeepsStateInATensor(Shared):
    """A random projection that is neither parameter nor buffer."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__(base)
        self.projection = base.weight.new_empty(2, base.in_features).normal_()

    def update(self, x: Tensor) -> Tensor:
        return x @ (self.a + self.projection).T @ self.b.T

    def delta(self, task: str) -> Tensor | None:
        return self.scale * (self.b @ (self.a + self.projection))


class FreezesItsOwnProjection(Shared):
    """A random projection that is a parameter but not trained, so that nobody saves it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__(base)
        self.a.requires_grad_(False)


class KeepsItsProjectionInABuffer(Shared):
    """The sound way to do the same."""

    a: Tensor  # type: ignore[assignment]  # a parameter in its base

    def __init__(self, base: nn.Linear) -> None:
        super().__init__(base)
        projection = self.a.detach()
        del self.a
        self.register_buffer("a", projection)


class DrawsItsOwnNoise(Shared):
    """Dropout by a generator that no seed reaches, so that a recomputed forward is another."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__(base)
        self.generator = random.Random(0)

    def update(self, x: Tensor) -> Tensor:
        return super().update(x) * (self.generator.random() if self.training else 1)


class AsksForAValue(Shared):
    def update(self, x: Tensor) -> Tensor:
        update = super().update(x)
        return update.clamp(max=1e6) if update.abs().max().item() > 1e6 else update


class DependsOnHowManyRun(TaskLoRA):
    def update(self, task: str, x: Tensor) -> Tensor:
        return super().update(task, x) / len(self.tasks)

    def delta(self, task: str) -> Tensor | None:
        delta = super().delta(task)
        assert delta is not None
        return delta / len(self.tasks)


class HidesTheFrozenModule(nn.Module):
    """Keeps what it stands for under a name that nobody knows."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.linear, self.shift = base, nn.Parameter(torch.zeros(base.out_features))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.linear(x)) + self.shift


class MovesTheFrozenWeight(Shared):
    """Starts its pair with a part of the weight, and takes that part away from the weight (as PiSSA does)."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__(base)
        self.b.data.normal_()
        base.weight.data -= self.scale * (self.b.data @ self.a.data)


class WritesIntoItsOwnType(Shared):
    """Collects its result in the type of its parameters, whatever autocast makes of the terms."""

    def update(self, x: Tensor) -> Tensor:
        update = super().update(x)
        return self.a.new_zeros(update.shape).index_add(0, torch.arange(len(update)), update)


COMPILES = "test_compiles_as_one_graph"  # takes seconds, so that only those it is about go through it
LAYOUT = "test_every_tap_serves_every_task_once"  # what breaks it breaks nearly everything

SOUND = {
    "streams": ToyLoRA(),
    "shared": at_proj(Shared),
    "buffer": at_proj(KeepsItsProjectionInABuffer),
}

BROKEN: dict[str, tuple[Adapter, set[str]]] = {
    "not the identity at its start": (at_proj(StartsElsewhere), {"test_starts_as_the_frozen_backbone"}),
    "trains what it was not given": (at_proj(TrainsTheFrozenBias), {"test_only_its_own_parameters_train"}),
    "an empty parameter": (at_proj(HasAnEmptyParameter), {"test_no_parameter_is_empty"}),
    "images mix": (at_proj(LooksAtTheWholeBatch), {"test_images_do_not_mix"}),
    "a fork for nothing": (streamed(ForksForNothing), {"test_tasks_differ_once_trained"}),
    "a gradient of zeros": (at_proj(HasADeadParameter), {"test_every_trainable_moves_in_one_step"}),
    "writes into a frozen weight": (at_proj(WritesIntoTheFrozenWeight), {"test_frozen_parameters_do_not_move"}),
    "a private parameter leaks": (streamed(FirstTaskForAll), {"test_private_parameters_hear_only_their_tasks"}),
    "merges without the scale": (at_proj(ForgetsTheScale), {"test_merged_weights_give_the_same_features"}),
    "options change when read": (Doubles(), {"test_options_survive_json"}),
    "state in a plain tensor": (at_proj(KeepsStateInATensor), {"test_saved_and_loaded_is_exact"}),
    "state in a frozen parameter": (at_proj(FreezesItsOwnProjection), {"test_saved_and_loaded_is_exact"}),
    "noise of its own": (at_proj(DrawsItsOwnNoise), {"test_activation_checkpointing_gives_the_same_gradients"}),
    "depends on how many tasks run": (streamed(DependsOnHowManyRun), {"test_a_task_alone_is_the_same"}),
    "hides the frozen module": (at_proj(HidesTheFrozenModule), {"test_every_pretrained_weight_keeps_its_place"}),
    "insists on its type": (at_proj(WritesIntoItsOwnType), {"test_bf16_gives_nearly_the_same_gradients"}),
    "moves the frozen weight": (
        at_proj(MovesTheFrozenWeight),
        {"test_every_pretrained_weight_keeps_its_place", "test_saved_and_loaded_is_exact"},
    ),
    "reads stacked streams batch first": (
        streamed(ReadsTheBatchFirst),
        {
            "test_images_do_not_mix",
            "test_a_task_alone_is_the_same",
            "test_merged_weights_give_the_same_features",
            "test_private_parameters_hear_only_their_tasks",
        },
    ),
}
