"""Our LoRA is Hugging Face PEFT's, layer for layer: outputs and gradients with the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from mt_adapters_baselines.lora import SharedLoRA, TaskLoRA
from mt_core.streams import Streams

peft = pytest.importorskip("peft", reason="Hugging Face PEFT is not installed")

TASKS = ("semseg", "depth", "normals")
RANK, SCALE = 3, 2.5


class OneLayer(nn.Module):
    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def pefts(base: nn.Linear, a: Tensor, b: Tensor) -> Any:
    """PEFT's LoRA layer around a copy of `base`, with these factors."""
    layer = nn.Linear(base.in_features, base.out_features, dtype=base.weight.dtype)
    layer.load_state_dict(base.state_dict())
    config = peft.LoraConfig(r=RANK, lora_alpha=SCALE * RANK, lora_dropout=0.0, target_modules=["layer"])
    found = peft.inject_adapter_in_model(config, OneLayer(layer)).layer
    found.lora_A["default"].weight.data.copy_(a)
    found.lora_B["default"].weight.data.copy_(b)
    return found


def factors() -> tuple[nn.Linear, Tensor]:
    torch.manual_seed(0)
    return nn.Linear(7, 11, dtype=torch.float64), torch.randn(2, 5, 7, dtype=torch.float64)


def test_shared_by_all_tasks() -> None:
    base, x = factors()
    ours = SharedLoRA(base, RANK, SCALE, dropout=0.0)
    nn.init.normal_(ours.b)
    theirs = pefts(base, ours.a, ours.b)
    inputs = x.clone().requires_grad_(), x.clone().requires_grad_()
    outputs = ours(inputs[0]), theirs(inputs[1])
    for y in outputs:
        y.square().sum().backward()
    assert_close(*outputs)
    assert_close(inputs[0].grad, inputs[1].grad)
    assert_close(ours.a.grad, theirs.lora_A["default"].weight.grad)
    assert_close(ours.b.grad, theirs.lora_B["default"].weight.grad)
    assert_close(ours.delta("any"), theirs.get_delta_weight("default"))


@pytest.mark.parametrize("forked", [False, True], ids=["where_streams_fork", "behind_the_fork"])
def test_one_for_each_task(forked: bool) -> None:
    base, x = factors()
    streams = Streams.trunk(TASKS)
    ours = TaskLoRA(base, streams.per_task() if forked else streams, RANK, SCALE, dropout=0.0)
    for b in ours.b.values():
        nn.init.normal_(b)
    x = torch.randn(3 * 2, 5, 7, dtype=torch.float64) if forked else x
    outputs = ours(x).unflatten(0, (3, -1))  # (T, B, 5, 11)
    outputs.square().sum().backward()
    for i, task in enumerate(TASKS):
        theirs = pefts(base, ours.a[task], ours.b[task])
        y = theirs(x.unflatten(0, (3, -1))[i] if forked else x)
        y.square().sum().backward()
        assert_close(outputs[i], y)
        assert_close(ours.a[task].grad, theirs.lora_A["default"].weight.grad)
        assert_close(ours.b[task].grad, theirs.lora_B["default"].weight.grad)
        assert_close(ours.delta(task), theirs.get_delta_weight("default"))


def test_both_start_alike() -> None:
    base, x = factors()
    ours = SharedLoRA(base, RANK, SCALE, dropout=0.0)
    theirs = peft.inject_adapter_in_model(peft.LoraConfig(r=RANK, target_modules=["layer"]), OneLayer(base)).layer
    bound = base.in_features**-0.5  # Kaiming-uniform with a = sqrt(5)
    for a in (ours.a, theirs.lora_A["default"].weight):
        assert 0.6 * bound < float(a.detach().abs().max()) <= bound
    assert not ours.b.any()
    assert not theirs.lora_B["default"].weight.any()
    assert_close(ours(x), theirs(x))
