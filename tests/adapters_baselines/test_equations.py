"""Each reference's forward is its equation, written out slowly: one task, one pass, nothing shared or batched."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from mt_adapters_baselines.adapters import BottleneckAdapter, Compacter, CompacterPP, LowRankAdapter, VLAdapter
from mt_adapters_baselines.bias import BitFit, RelativeBias, TaskBias, TaskEmbeddingNorm, TaskFork, TaskPositionBias
from mt_adapters_baselines.bottleneck import (
    Bottleneck,
    Kronecker,
    LowRank,
    Projection,
    SharedBottleneck,
    TaskBottleneck,
)
from mt_adapters_baselines.full import Full
from mt_adapters_baselines.lora import LoRA, LoRAPerTask, NormedLoRA, SharedLoRA, TaskLoRA
from mt_adapters_baselines.multilora import MultiLoRA, ParallelLoRA
from mt_core.adapter import Adapter, SiteModule
from mt_core.attachment import Attachment, attach
from mt_core.errors import ConfigError, MergeError
from mt_core.merging import merge
from mt_core.site import Site
from mt_core.streams import Streams
from mt_core.testing.miniatures import architectures, randomise

TASKS = ("semseg", "depth", "normals")
EXACT = {"atol": 1e-9, "rtol": 1e-9}
EVERY = ["qkv", "proj", "fc1", "fc2"]
METHODS: dict[str, Adapter] = {
    "full": Full(),
    "lora": LoRA(rank=2, sites=EVERY),
    "lora with a norm": LoRA(rank=2, pre_norm=True),
    "lora per task": LoRAPerTask(rank=2, sites=EVERY),
    "lora per task, later": LoRAPerTask(rank=2, sites=["fc2"], train_norms=False),
    "lora per task with a norm": LoRAPerTask(rank=2, pre_norm=True),
    "multilora": MultiLoRA(rank=2, parallel=3),
    "bitfit": BitFit(),
    "bitfit per task": BitFit(per_task=True),
    "bitfit per task without position biases": BitFit(per_task=True, pos_bias=False),
    "relative bias": RelativeBias(),
    "relative bias per task": RelativeBias(per_task=True),
    "adapter": BottleneckAdapter(),
    "adapter per task": BottleneckAdapter(per_task=True, sites=["proj", "mlp"]),
    "adapter without norm and bias": BottleneckAdapter(per_task=True, norm=False, bias=False, reduction=4),
    "low-rank adapter": LowRankAdapter(rank=2),
    "low-rank adapter per task": LowRankAdapter(rank=2, per_task=True),
    "vl-adapter": VLAdapter(),
    "compacter": Compacter(parts=2),
    "compacter shared": Compacter(parts=2, rank=2, per_task=False),
    "compacter++": CompacterPP(parts=2),
}


class Literal(nn.Module):
    """What a site computes for one task, with the parameters of the adapted encoder."""

    def __init__(self, site: SiteModule, task: str) -> None:
        super().__init__()
        self.base, self.site, self.task = site.base, (site,), task

    def forward(self, *inputs: Tensor) -> Tensor:
        (site,) = self.site
        return EQUATIONS[type(site)](site, self.task, *inputs)


def shared_lora(site: Any, task: str, x: Tensor) -> Tensor:
    return site.base(x) + site.scale * torch.einsum(
        "dr,rk,...k->...d", site.b, site.a, site.norm(x) if isinstance(site, NormedLoRA) else x
    )


def task_lora(site: Any, task: str, x: Tensor) -> Tensor:
    inner = x
    if task in site.norm_weight:
        inner = F.layer_norm(x, x.shape[-1:], site.norm_weight[task], site.norm_bias[task])
    return site.base(x) + site.scale * torch.einsum("dr,rk,...k->...d", site.b[task], site.a[task], inner)


def parallel_lora(site: Any, task: str, x: Tensor) -> Tensor:
    y = site.base(x)
    for a, b, z in zip(site.a, site.b, site.z, strict=True):
        y = y + site.scale * (z * x) @ a.T @ b.T
    return y


def task_bias(site: Any, task: str, x: Tensor) -> Tensor:
    return site.base(x) + site.bias[task]


def embedding_norm(site: Any, task: str, x: Tensor) -> Tensor:
    return site.base(x + site.embedding_bias[task]) + site.bias[task]


def bottleneck(y: Tensor, of: Any, activation: Any) -> Tensor:
    x = y if of.norm is None else of.norm(y)
    x = activation(x @ matrix(of.down) + (0 if of.down.bias is None else of.down.bias))
    return y + x @ matrix(of.up) + (0 if of.up.bias is None else of.up.bias)


def matrix(projection: Projection) -> Tensor:
    """W, by the definition of the Kronecker product where it is made of them."""
    if isinstance(projection, Kronecker):
        terms = zip(projection.rule, projection.first, projection.last, strict=True)
        return torch.stack([torch.kron(a, s @ t) for a, s, t in terms]).sum(0)
    return projection.first @ projection.last if isinstance(projection, LowRank) else projection.last  # type: ignore[operator,return-value]


EQUATIONS: dict[type, Any] = {
    SharedLoRA: shared_lora,
    NormedLoRA: shared_lora,
    TaskLoRA: task_lora,
    ParallelLoRA: parallel_lora,
    TaskBias: task_bias,
    TaskEmbeddingNorm: embedding_norm,
    TaskPositionBias: lambda site, task: site.copies[task](),
    TaskFork: lambda site, task, x: site.base(x),
    SharedBottleneck: lambda site, task, x: bottleneck(site.base(x), site.bottleneck, site.activation),
    TaskBottleneck: lambda site, task, x: bottleneck(site.base(x), site.of[task], site.activation),
}


def adapted(method: Adapter, backbone: str) -> tuple[Attachment, Tensor]:
    """The method in a miniature, in float64, with all it trains moved from its start. Refused pairs are skipped."""
    torch.manual_seed(0)
    encoder, images = architectures()[backbone].miniature()
    try:
        attachment = attach(method, encoder.double().eval(), TASKS)
    except ConfigError as refusal:
        pytest.skip(f"refused: {refusal}")
    attachment.encoder.eval()
    randomise([p for p in encoder.parameters() if p.requires_grad], std=0.2)
    return attachment, images.double()


class Literals(Adapter):
    """Puts the literal modules of one task where the adapted encoder has its own."""

    def __init__(self, attachment: Attachment, task: str) -> None:
        self.attachment, self.task = attachment, task

    def adapt(self, site: Site, module: nn.Module, streams: Streams) -> nn.Module | None:
        replaced = self.attachment.replaced
        if site.path not in replaced:
            return None
        return Literal(cast(SiteModule, self.attachment.encoder.get_submodule(site.path)), self.task)


def separate_pass(attachment: Attachment, backbone: str, images: Tensor, task: str) -> list[Tensor]:
    """One pass of a plain encoder for one task, with the parameters of the adapted one."""
    adapted = {name.replace(".base.", "."): p for name, p in attachment.encoder.named_parameters()}
    trained = [p for p in adapted.values() if p.requires_grad]
    encoder, _ = architectures()[backbone].miniature()
    for name, _ in list(encoder.named_parameters()):
        path, _, leaf = name.rpartition(".")
        encoder.get_submodule(path).register_parameter(leaf, adapted[name])
    attach(Literals(attachment, task), encoder.eval(), [task])
    for parameter in trained:
        parameter.requires_grad_(True)  # `attach` has frozen what both encoders share
    return encoder(images)


PAIRS = [("swin_base", method) for method in METHODS] + [
    (backbone, method)
    for backbone in architectures()
    for method in ("lora per task", "bitfit per task without position biases", "adapter per task")
    if backbone != "swin_base"
]


@pytest.mark.parametrize(("backbone", "method"), PAIRS)
def test_features_and_gradients_are_those_of_separate_literal_passes(backbone: str, method: str) -> None:
    attachment, images = adapted(METHODS[method], backbone)
    features = attachment.features(attachment.encoder(images))
    expected = {task: separate_pass(attachment, backbone, images, task) for task in TASKS}
    weights = {task: [torch.randn_like(level) for level in levels] for task, levels in expected.items()}
    parameters = [p for p in attachment.encoder.parameters() if p.requires_grad]
    gradients = []
    for outputs in (features, expected):
        loss = torch.stack([(x * w).mean() for t in TASKS for x, w in zip(outputs[t], weights[t], strict=True)]).sum()
        gradients.append(torch.autograd.grad(loss, parameters, allow_unused=True))
    for task in TASKS:
        assert_close(features[task], expected[task], **EXACT)
    for ours, literal in zip(*gradients, strict=True):
        assert (ours is None) == (literal is None)
        if ours is not None:
            assert_close(ours, literal, **EXACT)


MERGE = ["lora", "lora per task", "multilora", "full", "bitfit", "relative bias"]
UNMERGEABLE = {
    "lora per task with a norm": "a LayerNorm stands before its low-rank term",
    "bitfit per task": "its bias changes, and only weights are merged",
    "relative bias per task": "the streams of the tasks fork there",
    "adapter": "an activation stands between its projections",
    "compacter": "an activation stands between its projections",
}


@pytest.mark.parametrize("method", MERGE)
def test_a_change_of_weight_merges(method: str) -> None:
    attachment, images = adapted(METHODS[method], "swin_base")
    features = attachment.features(attachment.encoder(images))
    for task in TASKS:
        assert_close(merge(attachment, task).encoder(images), features[task], **EXACT)


@pytest.mark.parametrize(("method", "reason"), UNMERGEABLE.items(), ids=UNMERGEABLE)
def test_what_is_none_says_why(method: str, reason: str) -> None:
    attachment, _ = adapted(METHODS[method], "swin_base")
    with pytest.raises(MergeError, match=reason):
        merge(attachment, "depth")


def test_the_first_frozen_product_is_taken_once_for_all_tasks() -> None:
    attachment, images = adapted(LoRAPerTask(rank=2), "swin_base")
    rows: list[int] = []
    for path in attachment.replaced:
        attachment.encoder.get_submodule(path).base.register_forward_pre_hook(  # type: ignore[union-attr]
            lambda _, args: rows.append(args[0][..., 0].numel())
        )
    attachment.encoder(images)
    assert rows[1] == len(TASKS) * rows[0]  # blocks of one stage: as many rows, but for the streams


def test_compacter_has_one_set_of_rules_per_task_and_a_new_one_each_time_it_is_attached() -> None:
    method, rules = Compacter(parts=2), list[set[int]]()
    attachments = [adapted(method, "swin_base")[0] for _ in range(2)]
    for attachment in attachments:
        found = [m for m in attachment.encoder.modules() if isinstance(m, Kronecker)]
        assert len(found) == 2 * len(TASKS) * len(attachment.replaced)
        rules.append({id(m.rule) for m in found})
        for task in TASKS:
            of_task = [m.of[task] for m in attachment.encoder.modules() if isinstance(m, TaskBottleneck)]
            assert len({id(p.rule) for b in of_task for p in (b.down, b.up)}) == 1
    assert [len(found) for found in rules] == [len(TASKS)] * 2
    assert not rules[0] & rules[1]


def test_a_bottleneck_starts_as_nothing() -> None:
    for down in (
        Kronecker(torch.empty(0), 8, 4, True, 1, 2),
        LowRank(torch.empty(0), 8, 4, True, 2),
    ):
        up = type(down)(torch.empty(0), 4, 8, True, *((1, 2) if isinstance(down, Kronecker) else (2,)))  # type: ignore[arg-type]
        assert matrix(up).any()
        Bottleneck(down, up, 8)
        assert not matrix(up).any()
        assert matrix(down).any()
