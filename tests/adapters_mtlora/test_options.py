"""MTLoRA's options: the paper's values are the defaults, and what cannot work is refused."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import nn

from mt_adapters_mtlora.lora import TaskLoRA
from mt_adapters_mtlora.mtlora import LINEAR, MODULES, MTLoRA, MTLoRAPlus
from mt_core.errors import ConfigError
from mt_core.low_rank import SharedLoRA
from mt_core.options import from_dict, to_dict
from mt_core.site import Role, Site
from mt_core.streams import Streams

STREAMS = Streams.trunk(("semseg", "depth"))
LAYER = nn.Linear(8, 6)


def answer(adapter: MTLoRA, role: Role, last: bool = False, module: nn.Module = LAYER) -> nn.Module | None:
    return adapter.adapt(Site("layer", role, 0, last=last), module, STREAMS)


def test_the_defaults_are_the_papers() -> None:
    assert to_dict(MTLoRA()) == {
        "rank": 64,
        "task_rank": 4,
        "scale": 4.0,
        "dropout": 0.05,
        "sites": ["qkv", "proj", "fc1", "fc2"],
        "train": ["patch_embed", "norm", "merge", "pos_bias"],
    }


def test_the_plus_variant_adapts_the_merging_in_place_of_training_it_and_has_one_rank_for_all() -> None:
    plus = MTLoRAPlus()
    assert (plus.rank, plus.task_rank) == (16, 16)
    assert "merge" in plus.sites
    assert "merge" not in plus.train
    assert MTLoRAPlus(rank=8, task_rank=2).task_rank == 2


@pytest.mark.parametrize("adapter", [MTLoRA(rank=3), MTLoRAPlus(rank=3), MTLoRAPlus(rank=3, task_rank=0)])
def test_options_are_the_same_when_read_again(adapter: MTLoRA) -> None:
    assert from_dict(type(adapter), to_dict(adapter), "adapter") == adapter


def test_every_option_is_described() -> None:
    assert MTLoRA.__doc__ is not None
    assert all(f"{field.name}:" in MTLoRA.__doc__ for field in fields(MTLoRA))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no rank": ({"rank": 0}, "rank=0 task_rank=4: expected rank >= 1 and task_rank >= 0"),
    "a negative task rank": ({"task_rank": -1}, "rank=64 task_rank=-1: expected rank >= 1 and task_rank >= 0"),
    "dropout of all": ({"dropout": 1.0}, "dropout=1.0: expected a probability below 1"),
    "dropout of less than nothing": ({"dropout": -0.1}, "dropout=-0.1: expected a probability below 1"),
    "an unknown site": ({"sites": ["qkv", "out"]}, r"sites=\['qkv', 'out'\]: 'out' is none of qkv, q, kv, proj, fc1,"),
    "an unknown module": (
        {"train": ["head"]},
        r"train=\['head'\]: 'head' is none of patch_embed, norm, merge, pos_bias",
    ),
    "both": ({"sites": ["merge"]}, r"\['merge'\] is in both sites and train: a layer is trained whole or gets"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_work_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MTLoRA(**options)


def test_the_plus_variant_refuses_the_same() -> None:
    with pytest.raises(ConfigError, match="rank=0 task_rank=0: expected rank >= 1"):
        MTLoRAPlus(rank=0)
    with pytest.raises(ConfigError, match=r"\['merge'\] is in both sites and train"):
        MTLoRAPlus(train=["merge"])


@pytest.mark.parametrize("role", [role for role in Role if role not in (Role.join, Role.tap, Role.mlp)])
def test_a_role_is_adapted_trained_or_left_as_the_options_say(role: Role) -> None:
    assert answer(MTLoRA(sites=[], train=[]), role) is None
    if role in MODULES:
        assert answer(MTLoRA(sites=[], train=[role]), role) is LAYER
    if role in LINEAR:
        assert isinstance(answer(MTLoRA(sites=[role], train=[]), role), SharedLoRA)


@pytest.mark.parametrize("role", [Role.q, Role.kv])
def test_q_and_kv_apart_count_as_the_fused_matrix(role: Role) -> None:
    assert isinstance(answer(MTLoRA(), role), SharedLoRA)
    assert answer(MTLoRA(sites=["proj"]), role) is None


def test_only_linear_layers_are_adapted() -> None:
    assert answer(MTLoRAPlus(), Role.merge, module=nn.Conv2d(8, 6, 2)) is None


@pytest.mark.parametrize("role", [Role.proj, Role.fc1, Role.fc2])
def test_the_last_block_of_a_stage_has_pairs_for_each_task(role: Role) -> None:
    last, other = answer(MTLoRA(task_rank=2), role, last=True), answer(MTLoRA(task_rank=2), role)
    assert isinstance(last, TaskLoRA)
    assert {task: tuple(a.shape) for task, a in last.task_a.items()} == {"semseg": (2, 8), "depth": (2, 8)}
    assert str(last.full_after) == "[semseg+depth | ~semseg | ~depth]"
    assert isinstance(other, SharedLoRA)


def test_qkv_is_always_shared_and_so_is_all_without_task_rank() -> None:
    assert isinstance(answer(MTLoRA(), Role.qkv, last=True), SharedLoRA)
    assert isinstance(answer(MTLoRA(task_rank=0), Role.proj, last=True), SharedLoRA)


def test_an_update_starts_as_nothing_in_the_type_of_its_layer() -> None:
    layer = nn.Linear(8, 6, dtype=torch.float64)
    adapted = answer(MTLoRA(rank=3), Role.qkv, module=layer)
    assert isinstance(adapted, SharedLoRA)
    assert adapted.a.dtype is adapted.b.dtype is torch.float64
    assert not adapted.b.any()
    bound = (1 / 8) ** 0.5  # Kaiming-uniform with a = sqrt(5): the bound is 1 / sqrt(inputs)
    assert bool((adapted.a.abs() <= bound).all())
    assert float(adapted.a.detach().abs().max()) > 0.7 * bound


def test_one_task_alone_can_be_trained() -> None:
    adapted = MTLoRA().adapt(Site("layer", Role.fc1, 0, last=True), LAYER, Streams.trunk(("depth",)))
    assert isinstance(adapted, TaskLoRA)
    assert str(adapted.full_after) == "[depth | ~depth]"
