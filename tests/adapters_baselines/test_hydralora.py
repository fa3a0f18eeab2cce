"""HydraLoRA on stacked streams equals one plain pass for each task, and has one A and T Bs a layer."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.testing import assert_close

from mt_adapters_baselines.hydralora import HydraLinear, HydraLoRA
from mt_core.accounting import count_parameters
from mt_core.attachment import attach
from mt_core.backbone import Encoder
from mt_core.decoders.hrnet import HRNet
from mt_core.errors import ConfigError
from mt_core.model import MultiTaskModel
from mt_core.tasks import Depth, Normals, Segmentation
from mt_core.testing.miniatures import architectures, randomise

TASKS = ("semseg", "depth", "normals")


@pytest.fixture(params=list(architectures()))
def plain(request: pytest.FixtureRequest) -> tuple[Encoder, Tensor]:
    encoder, images = architectures()[request.param].miniature()
    return encoder.double().eval(), images.double()


def test_features_and_gradients_equal_separate_passes(plain: tuple[Encoder, Tensor]) -> None:
    encoder, images = plain
    attachment = attach(HydraLoRA(rank=3, scale=1.5, sites=["qkv", "fc1"]), copy.deepcopy(encoder), TASKS)
    adapted = attachment.encoder.eval()
    parameters = [p for p in adapted.parameters() if p.requires_grad]
    randomise(parameters, 0.2)
    own = dict(adapted.named_parameters())

    def separate_pass(task: str) -> list[Tensor]:
        weights = {}
        for name, value in encoder.named_parameters():
            module = adapted.get_submodule(name.rpartition(".")[0])
            if isinstance(module, HydraLinear):
                update = torch.einsum("dr,rk->dk", module.b[task], module.a)
                weights[name] = value + 1.5 * update if name.endswith("weight") else value
            else:
                weights[name] = own.get(name, value)
        return functional_call(encoder, weights, (images,))

    features, expected = attachment.features(adapted(images)), {task: separate_pass(task) for task in TASKS}
    assert_close(features, expected, atol=1e-9, rtol=1e-9)
    gradients = [
        torch.autograd.grad(sum(x.square().sum() for levels in found.values() for x in levels), parameters)
        for found in (features, expected)
    ]
    assert_close(gradients[0], gradients[1], atol=1e-7, rtol=1e-8)


def test_one_a_for_all_tasks_and_a_b_for_each_are_counted() -> None:
    sam = pytest.importorskip("mt_backbones_sam.sam", reason="mt-backbones-sam is not installed")
    mask = pytest.importorskip("mt_backbones_sam.sam_mask", reason="mt-backbones-sam is not installed")
    tasks = (Segmentation("semseg", 13), Depth("depth", 1), Normals("normals", 3))
    with torch.device("meta"):
        model = MultiTaskModel(sam.SamLarge().build((256, 256)), HydraLoRA(rank=16), mask.SamMask(), tasks)
    counts = count_parameters(model, (256, 256))
    assert counts.groups["adapter"].trainable == 24 * 16 * (1024 + 3 * 3072)
    assert counts.groups["norm"].trainable == 24 * 2 * 2 * 1024
    assert counts.groups["adapter"].live == counts.groups["adapter"].trainable


def test_norms_may_stay_frozen() -> None:
    encoder, images = next(iter(architectures().values())).miniature()
    model = MultiTaskModel(encoder, HydraLoRA(rank=1, train_norms=False), HRNet(), (Depth("depth", 1),))
    assert "norm" not in count_parameters(model, tuple(images.shape[-2:])).groups


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "expected a rank from 1"),
        ({"dropout": 1.0}, r"a dropout in \[0, 1\)"),
        ({"sites": ["head"]}, "'head' is none of qkv"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        HydraLoRA(**options)
