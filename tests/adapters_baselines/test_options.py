"""Options that cannot work, and pairs of method and backbone that make no sense, are refused with the reason."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import nn

from mt_adapters_baselines.adapters import BottleneckAdapter, Compacter, CompacterPP, LowRankAdapter, VLAdapter
from mt_adapters_baselines.bias import BitFit, RelativeBias
from mt_adapters_baselines.full import Full
from mt_adapters_baselines.hydralora import HydraLoRA
from mt_adapters_baselines.lora import LoRA, LoRAPerTask
from mt_adapters_baselines.multilora import MultiLoRA
from mt_core.adapter import Adapter
from mt_core.attachment import attach
from mt_core.discovery import registry
from mt_core.errors import ConfigError
from mt_core.site import Role, Site
from mt_core.streams import Streams
from mt_core.testing import AdapterCase, AdapterConformance
from mt_core.testing.miniatures import architectures

TASKS = ("semseg", "depth", "normals")
REFUSED: list[tuple[type[Adapter], dict[str, Any], str]] = [
    (LoRA, {"rank": 0}, "rank=0: expected a rank of at least 1"),
    (LoRAPerTask, {"dropout": 1.0}, "dropout=1.0: expected a probability below 1"),
    (LoRA, {"sites": ["head"]}, r"sites=\['head'\]: 'head' is none of qkv, q, kv"),
    (LoRA, {"sites": []}, r"sites=\[\]: expected at least one of qkv"),
    (MultiLoRA, {"parallel": 0}, "parallel=0: expected at least one update"),
    (MultiLoRA, {"pre_norm": True}, "pre_norm=true is not for multilora"),
    (BottleneckAdapter, {"reduction": 0}, "reduction=0: expected at least 1, which keeps"),
    (BottleneckAdapter, {"sites": ["qkv"]}, r"sites=\['qkv'\]: 'qkv' is none of mlp, proj"),
    (LowRankAdapter, {"rank": 0}, "rank=0: expected projections of rank 1"),
    (Compacter, {"parts": 0}, "rank=1 parts=0: expected two positive numbers"),
]


@pytest.mark.parametrize(("method", "options", "message"), REFUSED)
def test_options_that_cannot_work_are_refused(method: type[Adapter], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        method(**options)


IMPOSSIBLE: list[tuple[Adapter, str, str]] = [
    (Compacter(parts=3), "swin_base", r"parts=3 does not divide the widths 8 and 4 \(reduction=2\) of layers.0"),
    (BottleneckAdapter(reduction=64), "swin_base", "reduction=64 leaves nothing of the 8 channels of layers.0"),
    (RelativeBias(), "pvt_v2_b0", "adapter relative_bias needs relative position biases, and PvtV2Encoder has none"),
    (RelativeBias(per_task=True), "sam_vit_b", "is multiplied with the queries: there is no bias of each task"),
    (BitFit(per_task=True), "sam_vit_b", "use adapter.per_task=false, or for bitfit adapter.pos_bias=false"),
    (LoRA(sites=["merge"]), "pvt_v2_b0", r"sites=\['merge'\]: PvtV2Encoder has no such layer to adapt; it has patch"),
    (HydraLoRA(sites=["merge"]), "pvt_v2_b0", r"sites=\['merge'\]: PvtV2Encoder has no such layer to adapt"),
]


@pytest.mark.parametrize(("method", "backbone", "message"), IMPOSSIBLE)
def test_what_a_backbone_cannot_do_is_refused(method: Adapter, backbone: str, message: str) -> None:
    if backbone not in architectures():
        pytest.skip(f"no backbone {backbone} is installed")
    encoder, _ = architectures()[backbone].miniature()
    with pytest.raises(ConfigError, match=message):
        attach(method, encoder, TASKS)


@pytest.mark.parametrize(
    "method", [LoRA, MultiLoRA, BottleneckAdapter, LowRankAdapter, Compacter, BitFit, RelativeBias]
)
def test_every_option_is_described(method: type[Adapter]) -> None:
    described = "".join(cls.__doc__ or "" for cls in method.__mro__)
    assert all(f"{field.name}:" in described for field in fields(method))


LEARN = ["full", "lora", "lora_per_task", "multilora", "bitfit", "relative_bias", "adapter", "low_rank_adapter"]
LEARN += ["vl_adapter", "compacter", "compacter_pp"]


@pytest.mark.parametrize("name", LEARN)
def test_each_learns_what_a_trained_one_of_its_kind_gives(name: str) -> None:
    method, backbone = registry("adapters")[name](), architectures()["swin_base"]
    teacher, student = (AdapterCase(method, backbone, dtype=torch.float32, moved=std) for std in (0.3, 0.0))
    with torch.no_grad():
        target = teacher.features()
    optimizer = torch.optim.Adam(student.trainable(), lr=0.02)
    losses = []
    for _ in range(15):
        features = student.features()
        pairs = [pair for task in TASKS for pair in zip(features[task], target[task], strict=True)]
        loss = torch.stack([(x - y).square().mean() for x, y in pairs]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]


def test_bitfit_leaves_alone_what_has_no_bias() -> None:
    bare = [nn.LayerNorm(4, bias=False), nn.Linear(4, 4, bias=False), nn.Sequential(nn.Conv2d(3, 4, 2, bias=False))]
    for role, module in zip((Role.norm, Role.qkv, Role.patch_embed), bare, strict=True):
        assert BitFit(per_task=True).adapt(Site("at", role, 0, reads=""), module, Streams.trunk(TASKS)) is None


class TestMultipleBitFit(AdapterConformance):
    entry = BitFit(per_task=True)


class TestMultipleRelativeBias(AdapterConformance):
    entry = RelativeBias(per_task=True)


class TestMultipleAdapter(AdapterConformance):
    entry = BottleneckAdapter(per_task=True, sites=["proj", "mlp"])


class TestMultipleLowRankAdapter(AdapterConformance):
    entry = LowRankAdapter(per_task=True, rank=2)


class TestLoRAPerTaskWithNorms(AdapterConformance):
    entry = LoRAPerTask(rank=2, pre_norm=True, sites=["qkv", "fc1"])


class TestSharedCompacter(AdapterConformance):
    entry = Compacter(per_task=False, parts=2)


def test_the_variants_of_one_method_differ_in_their_defaults_only() -> None:
    assert VLAdapter() != BottleneckAdapter()
    assert VLAdapter().train_norms
    assert CompacterPP().sites == ["mlp"]
    assert Full() == Full()
