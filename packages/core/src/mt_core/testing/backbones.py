"""What every backbone must do: above all, that its sites tell the truth about how it computes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from ..adapter import Adapter, StreamModule
from ..attachment import attach
from ..backbone import Backbone, Encoder
from ..discovery import registry
from ..errors import PluginError
from ..site import Join, Role, Site, Tap
from ..streams import Streams
from .adapters import TASKS
from .miniatures import assert_alike


class _Forked(StreamModule):
    """The frozen module, then a fork: streams differ in nothing but their place."""

    def forward(self, *inputs: Tensor) -> Any:
        return _to_tokens(self.base(*inputs), self.change)

    def change(self, y: Tensor) -> Tensor:
        """What is done to the tokens that the site gives on."""
        forked: Tensor = self.fork(y)
        return forked


class _Marked(_Forked):
    """And then each stream is told apart by a factor, so that a stream in the wrong place shows."""

    def change(self, y: Tensor) -> Tensor:
        streams: Tensor = self.fork(y).unflatten(0, (len(self.after), -1))  # (S, B, ...)
        factor = torch.tensor([_factor(str(stream)) for stream in self.after]).view(-1, *[1] * y.dim())
        return (streams * factor).flatten(0, 1)


class _ForkAt(Adapter):
    """Forks the streams after one site and changes nothing else."""

    def __init__(self, path: str, sides: bool, module: type[_Forked]) -> None:
        self.path, self.sides, self.module = path, sides, module

    def adapt(self, site: Site, module: nn.Module, streams: Streams) -> nn.Module | None:
        if site.path != self.path:
            return None
        return self.module(module, streams, streams.with_sides() if self.sides else streams.per_task())


class _ScaleAt(Adapter):
    """Multiplies one site's output by the factor of one task: what `_Marked` must give for that task."""

    def __init__(self, path: str, task: str) -> None:
        self.path, self.task = path, task

    def adapt(self, site: Site, module: nn.Module, streams: Streams) -> nn.Module | None:
        return _Scaled(module, _factor(self.task)) if site.path == self.path else None


class _Scaled(nn.Module):
    def __init__(self, base: nn.Module, factor: float) -> None:
        super().__init__()
        self.base, self.factor = base, factor

    def forward(self, *inputs: Tensor) -> Any:
        return _to_tokens(self.base(*inputs), lambda y: y * self.factor)


def _to_tokens(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Change what a site gives on: its output, or at a site for prompts the first of two."""
    return change(output) if isinstance(output, Tensor) else (change(output[0]), *output[1:])


def _factor(stream: str) -> float:
    """A factor near 1 for each task's stream, and 1 for the shared one."""
    return {task: 1 + 0.1 * (i + 1) for i, task in enumerate(TASKS)}.get(stream.removeprefix("~"), 1.0)


class BackboneConformance:
    """The contract of a backbone. Set `entry` to its class, or to its registered name."""

    entry: ClassVar[type[Backbone] | str]

    @pytest.fixture
    def plain(self) -> tuple[Encoder, Tensor]:
        torch.manual_seed(0)
        backbone: type[Backbone] = registry("backbones")[self.entry] if isinstance(self.entry, str) else self.entry
        encoder, images = backbone.miniature()
        return encoder.eval().requires_grad_(False), images

    def test_levels_keep_their_promise(self, plain: tuple[Encoder, Tensor]) -> None:
        encoder, images = plain
        features = encoder(images)
        assert len(features) == len(encoder.levels)
        for level, x in zip(encoder.levels, features, strict=True):
            size = tuple(-(-side // level.stride) for side in images.shape[-2:])
            assert x.shape == (len(images), level.channels, *size), f"{level} promised, {tuple(x.shape)} given"

    def test_sites_are_modules_in_the_order_they_run(self, plain: tuple[Encoder, Tensor]) -> None:
        encoder, images = plain
        listed = [site.path for site in encoder.sites()]
        assert len(set(listed)) == len(listed), "a site is listed twice"
        ran: list[str] = []
        for path in listed:
            encoder.get_submodule(path).register_forward_pre_hook(lambda *_, path=path: ran.append(path))
        encoder(images)
        assert ran == listed

    def test_joins_and_taps_say_so(self, plain: tuple[Encoder, Tensor]) -> None:
        encoder, _ = plain
        for site in encoder.sites():
            module = encoder.get_submodule(site.path)
            assert isinstance(module, Join) == (site.role is Role.join), f"{site.path} is listed as {site.role}"
            assert isinstance(module, Tap) == (site.role is Role.tap), f"{site.path} is listed as {site.role}"
        assert sum(site.role is Role.tap for site in encoder.sites()) == len(encoder.levels)

    def test_fused_parts_add_up(self, plain: tuple[Encoder, Tensor]) -> None:
        encoder, _ = plain
        for site in encoder.sites():
            if site.parts:
                width = encoder.get_submodule(site.path).out_features
                assert sum(site.parts) == width, f"{site.path}: parts {site.parts} of {width}"

    @pytest.mark.parametrize("sides", [False, True], ids=["carried", "side"])
    def test_streams_may_fork_at_any_site(self, plain: tuple[Encoder, Tensor], sides: bool) -> None:
        encoder, images = plain
        expected = encoder(images)
        for path in _forkable(encoder):
            model = copy.deepcopy(encoder)
            for task, levels in _run(_ForkAt(path, sides, _Forked), model, images).items():
                assert_alike(levels, expected, f"{task} after a fork at {path}")

    @pytest.mark.parametrize("sides", [False, True], ids=["carried", "side"])
    def test_forked_streams_go_their_own_way(self, plain: tuple[Encoder, Tensor], sides: bool) -> None:
        encoder, images = plain
        for path in _forkable(encoder):
            features = _run(_ForkAt(path, sides, _Marked), copy.deepcopy(encoder), images)
            task = TASKS[1]
            alone = _run(_ScaleAt(path, task), copy.deepcopy(encoder), images)[task]
            stage = next(site.stage for site in encoder.sites() if site.path == path)
            until = stage + 1 if sides else len(alone)  # side streams leave at the stage's end
            assert_alike(features[task][:until], alone[:until], f"{task}'s stream, forked at {path}")

    def test_images_do_not_mix(self, plain: tuple[Encoder, Tensor]) -> None:
        encoder, images = plain
        assert_alike([level[1:] for level in encoder(images)], encoder(images[1:]), "images of a batch mix")

    def test_activation_checkpointing_changes_nothing(self, plain: tuple[Encoder, Tensor]) -> None:
        encoder, images = plain
        encoder.train().requires_grad_(True)
        gradients = []
        for checkpointing in (False, True):
            encoder.checkpointing = checkpointing
            encoder.zero_grad(set_to_none=True)
            torch.manual_seed(0)
            torch.stack([level.square().mean() for level in encoder(images)]).sum().backward()
            gradients.append({name: p.grad for name, p in encoder.named_parameters() if p.grad is not None})
        assert_alike(gradients[1], gradients[0], "gradients with activation checkpointing")

    def test_compiles_as_one_graph(self, plain: tuple[Encoder, Tensor]) -> None:
        encoder, images = plain
        torch._dynamo.reset()
        compiled: Any = torch.compile(encoder, fullgraph=True, backend="eager")
        with torch.no_grad():
            assert_alike(compiled(images), encoder(images), "compiled")

    def test_original_names_are_one_to_one(self, plain: tuple[Encoder, Tensor]) -> None:
        state = plain[0].state_dict()
        assert len(plain[0].original(state)) == len(state)


def _forkable(encoder: Encoder) -> list[str]:
    """The sites that tokens pass through. A position bias has no batch axis, so no stream forks there."""
    return [site.path for site in encoder.sites() if not (site.structural or site.role is Role.pos_bias)]


def _run(adapter: Adapter, encoder: Encoder, images: Tensor) -> dict[str, list[Tensor]]:
    path = getattr(adapter, "path", "")
    try:
        attachment = attach(adapter, encoder, TASKS)
        return attachment.features(encoder(images))
    except (PluginError, RuntimeError, ValueError) as error:
        raise AssertionError(f"a fork at {path} does not run: {error}") from error
