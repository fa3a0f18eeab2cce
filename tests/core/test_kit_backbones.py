"""The kit's contract of backbones: for each property something that breaks it, and only it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from mt_core.attachment import put
from mt_core.backbone import Encoder, Level
from mt_core.site import Residual, Role, Site
from mt_core.testing import BackboneConformance

from .contracts import failures, properties
from .toys import FusedAttention, ToyEncoder


def encoder(**methods: Any) -> type[ToyEncoder]:
    """The toy encoder with some of its methods replaced."""
    return type("BrokenEncoder", (ToyEncoder,), methods)


def with_sites(change: Callable[[list[Site]], list[Site]]) -> type[ToyEncoder]:
    """The toy encoder, with something else said about its sites."""
    return encoder(sites=lambda self: change(ToyEncoder.sites(self)))


def with_part(path: str, part: Callable[[], nn.Module], base: type[ToyEncoder] = ToyEncoder) -> type[ToyEncoder]:
    """The toy encoder with another module somewhere."""

    class Broken(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            put(self, path, part())

    return Broken


def promising(*levels: Level) -> type[ToyEncoder]:
    """The toy encoder with other promises about its levels."""

    class Broken(ToyEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.levels = levels

    return Broken


def saying(path: str, **changed: Any) -> Callable[[list[Site]], list[Site]]:
    return lambda sites: [replace(site, **changed) if site.path == path else site for site in sites]


def swapping(first: str, second: str) -> Callable[[list[Site]], list[Site]]:
    def swap(sites: list[Site]) -> list[Site]:
        by_path = {site.path: site for site in sites}
        other = {first: second, second: first}
        return [by_path[other.get(site.path, site.path)] for site in sites]

    return swap


def leaving_out(path: str, before: str) -> Callable[[list[Site]], list[Site]]:
    """Whoever reads it is said to read the site before it."""
    return lambda sites: [
        replace(site, reads=before if site.reads == path else site.reads) for site in sites if site.path != path
    ]


class BatchOfTheInput(FusedAttention):
    """Takes the batch size from what goes into qkv."""

    def attend(self, x: Tensor, qkv: Tensor) -> Tensor:
        q, k, v = qkv.reshape(len(x), -1, qkv.shape[-1]).chunk(3, dim=-1)
        return nn.functional.scaled_dot_product_attention(q, k, v).view(len(qkv), *x.shape[1:])


class ImageMajor(Residual):
    """Repeats the rows of the narrower side image by image, where streams are stacked one after the other."""

    def forward(self, x: Tensor, branch: Tensor) -> Tensor:  # type: ignore[override]
        return x.repeat_interleave(len(branch) // len(x), 0) + branch


class Plain(nn.Module):
    """x + branch, and no join."""

    def forward(self, x: Tensor, branch: Tensor) -> Tensor:
        return x + branch


class CentresTheBatch(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - x.mean(0))


class AsksForAValue(nn.Linear):
    """Looks at a number on its way, which no graph can."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if float(x.detach().sum()) < 1e9 else x


def one_name_for_two(self: ToyEncoder, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.replace("norm1", "norm2"): value for name, value in state.items()}


def skips_when_checkpointing(self: ToyEncoder, block: nn.Module, x: Tensor) -> Tensor:
    return x if self.checkpointing else cast(Tensor, block(x))


STREAMS = {"test_streams_may_fork_at_any_site", "test_forked_streams_go_their_own_way"}
COMPILES = "test_compiles_as_one_graph"
ORDER = {"test_sites_are_modules_in_the_order_they_run"}
PROMISE = {"test_levels_keep_their_promise"}

PLAIN_SUM = with_part("block0.residual1", Plain, with_sites(leaving_out("block0.residual1", "block0.attn.proj")))

BROKEN_ENCODERS: dict[str, tuple[type[ToyEncoder], set[str]]] = {
    "kv said to read q": (with_sites(saying("block1.attn.kv", reads=None)), STREAMS),
    "a residual said to read its block's entrance": (
        with_sites(saying("block0.residual2", reads="patch_embed")),
        STREAMS,
    ),
    "a site said to read what comes later": (with_sites(saying("block0.attn.qkv", reads="tap1")), STREAMS),
    "attention by the input's batch size": (with_part("block0.attn", lambda: BatchOfTheInput(6)), STREAMS),
    "a join that repeats image by image": (with_part("block0.residual1", ImageMajor), STREAMS),
    "a join that is not listed": (with_sites(leaving_out("block0.residual1", "block0.attn.proj")), STREAMS),
    "a plain sum in place of a join": (PLAIN_SUM, STREAMS),
    "a plain sum listed as a join": (with_part("block0.residual1", Plain), STREAMS | {"test_joins_and_taps_say_so"}),
    "sites out of order": (with_sites(swapping("block0.attn.qkv", "block0.attn.proj")), ORDER),
    "a site listed twice": (with_sites(lambda sites: [sites[0], *sites]), ORDER | STREAMS),
    "a tap said to be a norm": (with_sites(saying("tap0", role=Role.norm)), {"test_joins_and_taps_say_so"}),
    "too many channels promised": (promising(Level(7, 4), Level(12, 8)), PROMISE),
    "another stride promised": (promising(Level(6, 8), Level(12, 8)), PROMISE),
    "parts that do not add up": (with_sites(saying("block0.attn.qkv", parts=(6, 6))), {"test_fused_parts_add_up"}),
    "two weights of one name": (encoder(original=one_name_for_two), {"test_original_names_are_one_to_one"}),
    "a block lost to checkpointing": (
        encoder(_run=skips_when_checkpointing),
        {"test_activation_checkpointing_changes_nothing"},
    ),
    "images that mix": (
        with_part("block0.attn.proj", lambda: CentresTheBatch(6, 6)),
        {"test_images_do_not_mix", "test_forked_streams_go_their_own_way"},
    ),
}


def backbone_failures(broken: type[ToyEncoder], without: str = "") -> set[str]:
    def plain() -> tuple[Encoder, Tensor]:
        torch.manual_seed(0)
        return broken().eval().requires_grad_(False), torch.rand(2, 3, 16, 24)

    return failures(BackboneConformance(), {"plain": plain}, without)


def test_a_sound_encoder_passes() -> None:
    assert backbone_failures(ToyEncoder) == set()


@pytest.mark.parametrize(("broken", "expected"), BROKEN_ENCODERS.values(), ids=BROKEN_ENCODERS)
def test_a_broken_encoder_fails_what_it_breaks_and_nothing_else(broken: type[ToyEncoder], expected: set[str]) -> None:
    assert backbone_failures(broken, without=COMPILES) == expected


def test_a_forward_that_asks_for_a_value_fails_to_compile_only() -> None:
    assert backbone_failures(with_part("block0.attn.proj", lambda: AsksForAValue(6, 6))) == {COMPILES}


def test_a_fork_that_does_not_run_says_where() -> None:
    plain = PLAIN_SUM().eval(), torch.rand(2, 3, 16, 24)
    with pytest.raises(AssertionError, match=r"a fork at block0\.norm1 does not run: The size of tensor"):
        BackboneConformance().test_streams_may_fork_at_any_site(plain, sides=False)


def test_every_property_of_a_backbone_has_something_that_breaks_it() -> None:
    broken = set().union(*(expected for _, expected in BROKEN_ENCODERS.values()))
    assert properties(BackboneConformance) - broken == {COMPILES}, "this one has a test of its own"
