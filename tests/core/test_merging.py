"""Merging: one task as a plain encoder; what every task shares, folded in place; and why something cannot be."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from mt_core.adapter import Adapter, SiteModule, StreamModule
from mt_core.attachment import Attachment, attach
from mt_core.errors import MergeError
from mt_core.frozen import Frozen
from mt_core.merging import fold_shared, merge
from mt_core.site import Role, Site
from mt_core.streams import Streams
from mt_core.testing.miniatures import randomise

from .toys import TASKS, TaskLoRA, ToyEncoder

IMAGES = torch.rand(2, 3, 16, 24, dtype=torch.float64)


class Shared(SiteModule):
    """W + D for every task."""

    base: nn.Linear

    def __init__(self, base: nn.Linear) -> None:
        super().__init__(base)
        self.change = nn.Parameter(torch.zeros_like(base.weight))

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.base(x) + x @ self.change.T)

    def delta(self, task: str) -> Tensor | None:
        return self.change


class Gate(SiteModule):
    """Not a change of weight."""

    unmergeable = "it squares the output"

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.base(x) ** 2)


class SideGate(StreamModule):
    """The same, that says nothing about why."""

    def forward(self, x: Tensor) -> Tensor:
        return self.fork(self.base(x))


class Weightless(SiteModule):
    """Says that it changes a weight where there is none."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__(nn.Sequential(base))

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.base(x))

    def delta(self, task: str) -> Tensor | None:
        return torch.zeros(1)


@dataclass
class Mixed(Adapter):
    """Shared updates in merging and fc1, task updates in qkv, trained norms, and one module more."""

    more: type[nn.Module] | None = None

    def adapt(self, site: Site, module: nn.Module, streams: Streams) -> nn.Module | None:
        if site.role is Role.norm:
            return module
        if site.role in (Role.merge, Role.fc1):
            return Shared(module)  # type: ignore[arg-type]
        if site.role is Role.qkv:
            return TaskLoRA(module, streams)  # type: ignore[arg-type]
        if site.role is Role.kv and self.more is not None:
            return self.more(module, streams) if issubclass(self.more, StreamModule) else self.more(module)
        return None


def put_in(adapter: Adapter) -> Attachment:
    torch.manual_seed(0)
    attachment = attach(adapter, ToyEncoder().double().eval(), TASKS)
    randomise([p for p in attachment.encoder.parameters() if p.requires_grad], 0.3)
    return attachment


@torch.no_grad()
def features(attachment: Attachment) -> dict[str, list[Tensor]]:
    return attachment.features(attachment.encoder(IMAGES))


def test_each_task_merges_into_a_plain_encoder_that_gives_its_features() -> None:
    attachment = put_in(Mixed())
    expected = features(attachment)
    for task in TASKS:
        merged = merge(attachment, task)
        assert merged.encoder.state_dict().keys() == ToyEncoder().state_dict().keys()
        assert not any(isinstance(module, SiteModule) for module in merged.encoder.modules())
        assert merged.folded == ("block0.attn.qkv", "block0.mlp.fc1", "merging.reduction", "block1.mlp.fc1")
        assert_close(merged.encoder(IMAGES), expected[task], atol=1e-12, rtol=1e-12)


def test_merging_leaves_the_adapted_encoder_as_it_is() -> None:
    attachment = put_in(Mixed())
    before = {name: value.clone() for name, value in attachment.encoder.state_dict().items()}
    merge(attachment, "depth")
    assert_close(attachment.encoder.state_dict(), before, rtol=0, atol=0)
    assert features(attachment).keys() == set(TASKS)


def test_merging_asks_for_the_task_and_not_for_what_is_selected() -> None:
    attachment = put_in(Mixed())
    expected = features(attachment)["depth"]
    attachment.select(["semseg"])
    assert_close(merge(attachment, "depth").encoder(IMAGES), expected, atol=1e-12, rtol=1e-12)


def test_the_largest_change_is_reported() -> None:
    attachment = put_in(Mixed())
    plain, merged = ToyEncoder(), merge(attachment, "depth")
    torch.manual_seed(0)
    plain = ToyEncoder().double()
    changes = [
        (merged.encoder.get_submodule(path).weight - plain.get_submodule(path).weight).abs().max().item()  # type: ignore[operator]
        for path in merged.folded
    ]
    assert merged.largest == pytest.approx(max(changes))
    assert merge(put_in(Frozen()), "depth").largest == 0


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Gate, "Gate at block1.attn.kv cannot be merged for task 'depth': it squares the output"),
        (SideGate, "SideGate at block1.attn.kv cannot be merged for task 'depth': it is not a change of weight"),
        (Weightless, "Weightless at block1.attn.kv cannot be merged for task 'depth': it is not a change of weight"),
        (nn.Sequential, "Sequential at block1.attn.kv cannot be merged for task 'depth': it is not a change of weight"),
    ],
)
def test_what_is_not_a_change_of_weight_says_so(module: type[nn.Module], message: str) -> None:
    with pytest.raises(MergeError, match=message):
        merge(put_in(Mixed(more=module)), "depth")


def test_an_unknown_task_cannot_be_merged() -> None:
    with pytest.raises(ValueError, match=r"cannot merge task 'edges': attached for \['semseg', 'depth', 'normals'\]"):
        merge(put_in(Mixed()), "edges")


def test_what_all_tasks_share_folds_in_place_and_the_streams_stay() -> None:
    attachment = put_in(Mixed(more=Gate))
    expected = features(attachment)
    assert fold_shared(attachment) == ("block0.mlp.fc1", "merging.reduction", "block1.mlp.fc1")
    assert attachment.replaced == ("block0.attn.qkv", "block1.attn.kv")
    assert not any(isinstance(module, Shared) for module in attachment.encoder.modules())
    assert_close(features(attachment), expected, atol=1e-12, rtol=1e-12)
    assert fold_shared(attachment) == ()


def test_a_trunk_that_was_folded_still_merges() -> None:
    attachment = put_in(Mixed())
    expected = features(attachment)
    fold_shared(attachment)
    for task in TASKS:
        assert_close(merge(attachment, task).encoder(IMAGES), expected[task], atol=1e-12, rtol=1e-12)


def test_a_merged_encoder_can_be_adapted_again() -> None:
    merged = merge(put_in(Mixed()), "depth").encoder
    again = attach(Mixed(), copy.deepcopy(merged), ("depth",))
    assert_close(again.features(again.encoder(IMAGES))["depth"], merged(IMAGES), atol=1e-12, rtol=1e-12)
