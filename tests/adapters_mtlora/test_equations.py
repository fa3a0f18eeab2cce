"""MTLoRA's forward is its paper's, written out literally; what can be merged is the same merged."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.testing import assert_close

from mt_adapters_mtlora.lora import TaskLoRA
from mt_adapters_mtlora.mtlora import MTLoRA, MTLoRAPlus
from mt_backbones_swin.swin import SwinTiny
from mt_core.attachment import Attachment, attach
from mt_core.errors import MergeError
from mt_core.low_rank import SharedLoRA
from mt_core.merging import fold_shared, merge
from mt_core.testing.miniatures import randomise

TASKS = ("semseg", "normals", "depth")
METHODS = [MTLoRA(rank=3, task_rank=2), MTLoRAPlus(rank=3), MTLoRA(rank=2, task_rank=1, scale=0.5, dropout=0.4)]
EXACT = {"atol": 1e-10, "rtol": 1e-10}


def _load_literal() -> ModuleType:
    spec = importlib.util.spec_from_file_location("literal", Path(__file__).with_name("literal.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


literal = _load_literal()


def adapted(method: MTLoRA) -> tuple[Attachment, Tensor]:
    """A miniature Swin in float64 with random, non-zero updates."""
    torch.manual_seed(0)
    encoder, images = SwinTiny.miniature()
    attachment = attach(method, encoder, TASKS)
    randomise([p for p in encoder.parameters() if p.requires_grad], std=0.2)
    return attachment, images.double() if encoder.double() else images


class RecordedDropout(nn.Module):
    """Dropout that keeps the masks it drew."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p, self.mask = p, torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        self.mask = (torch.rand_like(x) >= self.p) / (1 - self.p)
        return x * self.mask


@pytest.mark.parametrize("method", METHODS, ids=["mtlora", "mtlora_plus", "other_knobs"])
def test_the_forward_is_the_papers_equations(method: MTLoRA) -> None:
    attachment, images = adapted(method)
    attachment.encoder.eval()
    features = attachment.features(attachment.encoder(images))
    for task in TASKS:
        assert_close(features[task], literal.features(attachment.encoder, images, task), **EXACT)


@pytest.mark.parametrize("method", METHODS, ids=["mtlora", "mtlora_plus", "other_knobs"])
def test_in_training_mode_the_same_masks_give_the_same_features_and_gradients(method: MTLoRA) -> None:
    attachment, images = adapted(method)
    encoder = attachment.encoder.train()
    for module in encoder.modules():
        if isinstance(module, SharedLoRA | TaskLoRA):
            module.dropout = RecordedDropout(method.dropout)
        elif isinstance(module, DropPath):
            module.drop_prob = 0.0  # stochastic depth is the backbone's, not the method's
    features = attachment.features(encoder(images))
    assert any(
        0 < float((m.mask == 0).double().mean()) < 1 for m in encoder.modules() if isinstance(m, RecordedDropout)
    )

    def drop(module: nn.Module, x: Tensor, stream: str) -> Tensor:
        masks = module.dropout.mask.reshape(-1, *x.shape)  # one per stream that arrived, the shared one first
        if isinstance(module, TaskLoRA):
            arrived = ["shared", *module.before.sides.tasks]
        else:
            merging_last = len(masks) == len(TASKS) and len(masks) > 1
            arrived = list(TASKS) if merging_last else ["shared", *TASKS][: len(masks)]
        return x * masks[arrived.index(stream)]

    parameters = [p for p in encoder.parameters() if p.requires_grad]
    weights = {task: [torch.randn_like(level) for level in features[task]] for task in TASKS}
    expected = {task: literal.features(encoder, images, task, drop) for task in TASKS}
    gradients = []
    for outputs in (features, expected):
        loss = torch.stack([(x * w).sum() for t in TASKS for x, w in zip(outputs[t], weights[t], strict=True)]).sum()
        gradients.append(torch.autograd.grad(loss, parameters, allow_unused=True))
    for task in TASKS:
        assert_close(features[task], expected[task], **EXACT)
    for ours, theirs in zip(*gradients, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert_close(ours, theirs, atol=1e-8, rtol=1e-8)


def test_without_task_pairs_every_task_merges_into_a_plain_backbone() -> None:
    attachment, images = adapted(MTLoRAPlus(rank=3, task_rank=0))
    attachment.encoder.eval()
    features = attachment.features(attachment.encoder(images))
    for task in TASKS:
        merged = merge(attachment, task)
        assert not any(isinstance(m, SharedLoRA | TaskLoRA) for m in merged.encoder.modules())
        assert_close(merged.encoder(images), features[task], **EXACT)
    assert merged.largest > 0


def test_the_shared_trunk_folds_and_the_side_streams_stay() -> None:
    attachment, images = adapted(MTLoRA(rank=3, task_rank=2))
    attachment.encoder.eval()
    features = attachment.features(attachment.encoder(images))
    folded = fold_shared(attachment)
    assert folded
    left = [m for m in attachment.encoder.modules() if isinstance(m, SharedLoRA | TaskLoRA)]
    assert left
    assert all(isinstance(m, TaskLoRA) for m in left)
    assert_close(attachment.features(attachment.encoder(images)), features, **EXACT)


def test_a_task_with_side_streams_says_why_it_cannot_be_merged() -> None:
    attachment, _ = adapted(MTLoRA(rank=3))
    with pytest.raises(MergeError, match=r"attn.proj cannot be merged for task 'depth': its frozen product is taken"):
        merge(attachment, "depth")


def test_the_shared_trunk_runs_once_whatever_the_number_of_tasks() -> None:
    rows: list[int] = []
    attachment, images = adapted(MTLoRA(rank=3))
    for name, module in attachment.encoder.named_modules():
        if name.endswith(("fc1.base", "fc2.base", "proj.base", "qkv.base")):
            module.register_forward_pre_hook(lambda _, args: rows.append(args[0].numel() // args[0].shape[-1]))
    attachment.encoder(images)
    several = rows.copy()
    rows.clear()
    attachment.select(["depth"])
    attachment.encoder(images)
    assert several == rows
