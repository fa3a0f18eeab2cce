"""TGLoRA's stacked streams equal T separate LoRA networks, each with the pairs of its task's groups."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.testing import assert_close

from mt_adapters_tglora.lora import GroupedLoRA
from mt_adapters_tglora.tglora import TGLoRA, Train
from mt_core.attachment import Attachment, attach
from mt_core.backbone import Encoder
from mt_core.low_rank import SharedLoRA
from mt_core.merging import fold_shared, merge
from mt_core.streams import Streams
from mt_core.testing.miniatures import architectures, randomise

TASKS = ("semseg", "depth", "normals", "edges")
CLOSE = {"atol": 1e-10, "rtol": 1e-10}
METHODS = {
    "paper": TGLoRA(rank=9),
    "attention": TGLoRA(rank=9, train=Train.attn, scale=0.5),
    "mlp_and_larger_last_stage": TGLoRA(rank=9, train=Train.attn_mlp, last_rank=3),
}


@pytest.fixture(params=list(architectures()))
def plain(request: pytest.FixtureRequest) -> tuple[Encoder, Tensor]:
    torch.manual_seed(0)
    encoder, images = architectures()[request.param].miniature()
    return encoder.double().eval(), images.double()


def adapted(plain: Encoder, method: TGLoRA) -> Attachment:
    """The adapter in a copy of the encoder, with random factors."""
    attachment = attach(method, copy.deepcopy(plain), TASKS)
    attachment.encoder.eval()
    randomise([p for p in attachment.encoder.parameters() if p.requires_grad], std=0.2)
    return attachment


def literal_weight(module: GroupedLoRA | SharedLoRA, task: str) -> Tensor:
    """W + s B A of the group that the task is in (eq. 4), found by its name."""
    if isinstance(module, SharedLoRA):
        return module.base.weight + module.scale * module.b @ module.a
    (group,) = [name for name in module.group_a if task in name.split("+")]
    return module.base.weight + module.scale * module.group_b[group] @ module.group_a[group]


def separate_pass(plain: Encoder, attachment: Attachment, images: Tensor, task: str) -> list[Tensor]:
    """One pass of the plain encoder along one task's path from the root to its leaf."""
    own = dict(attachment.encoder.named_parameters())
    weights = {}
    for name, value in plain.named_parameters():
        path, _, leaf = name.rpartition(".")
        module = attachment.encoder.get_submodule(path)
        if isinstance(module, GroupedLoRA | SharedLoRA):
            weights[name] = literal_weight(module, task) if leaf == "weight" else getattr(module.base, leaf)
        else:
            weights[name] = own.get(name, value)
    return functional_call(plain, weights, (images,))


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_features_and_gradients_equal_separate_networks(plain: tuple[Encoder, Tensor], method: TGLoRA) -> None:
    encoder, images = plain
    attachment = adapted(encoder, method)
    features = attachment.features(attachment.encoder(images))
    expected = {task: separate_pass(encoder, attachment, images, task) for task in TASKS}
    weights = {task: [torch.randn_like(level) for level in levels] for task, levels in expected.items()}
    parameters = [p for p in attachment.encoder.parameters() if p.requires_grad]
    gradients = []
    for outputs in (features, expected):
        loss = torch.stack([(x * w).sum() for t in TASKS for x, w in zip(outputs[t], weights[t], strict=True)]).sum()
        gradients.append(torch.autograd.grad(loss, parameters))
    for task in TASKS:
        assert_close(features[task], expected[task], **CLOSE)
    for ours, literal in zip(*gradients, strict=True):
        assert_close(ours, literal, atol=1e-8, rtol=1e-9)


def test_each_task_merges_into_a_plain_encoder(plain: tuple[Encoder, Tensor]) -> None:
    encoder, images = plain
    attachment = adapted(encoder, METHODS["paper"])
    features = attachment.features(attachment.encoder(images))
    for task in TASKS:
        merged = merge(attachment, task).encoder
        assert merged.state_dict().keys() == encoder.state_dict().keys()
        assert_close(merged(images), features[task], **CLOSE)


def test_what_all_tasks_share_folds_and_the_groups_stay(plain: tuple[Encoder, Tensor]) -> None:
    encoder, images = plain
    attachment = adapted(encoder, METHODS["paper"])
    features = attachment.features(attachment.encoder(images))
    shared = [name for name, module in attachment.encoder.named_modules() if isinstance(module, SharedLoRA)]
    assert list(fold_shared(attachment)) == shared
    assert not any(isinstance(module, SharedLoRA) for module in attachment.encoder.modules())
    for task, levels in attachment.features(attachment.encoder(images)).items():
        assert_close(levels, features[task], **CLOSE)


def test_one_task_alone_runs_one_encoder_pass(plain: tuple[Encoder, Tensor]) -> None:
    encoder, images = plain
    attachment = adapted(encoder, METHODS["paper"])
    whole = attachment.features(attachment.encoder(images))
    attachment.select(["normals"])
    levels = attachment.encoder(images)
    assert all(len(level) == len(images) for level in levels)
    assert_close(attachment.features(levels)["normals"], whole["normals"], **CLOSE)


def layer(ranks: tuple[int, ...], dropout: float = 0.0) -> GroupedLoRA:
    before = Streams.trunk(("a", "b", "c"))
    module = GroupedLoRA(nn.Linear(5, 4).double(), before, before.split([["a", "b"], ["c"]]), ranks, 2.0, dropout)
    randomise(list(module.group_b.values()), std=1.0)
    return module


def test_groups_of_different_ranks_are_equation_4_each() -> None:
    module, x = layer((4, 1)), torch.randn(3, 7, 5, dtype=torch.float64)
    assert {name: tuple(a.shape) for name, a in module.group_a.items()} == {"a+b": (4, 5), "c": (1, 5)}
    ours = module(x).unflatten(0, (2, 3))
    for i, group in enumerate(("a+b", "c")):
        update = torch.einsum("dr,rk,bnk->bnd", module.group_b[group], module.group_a[group], x)
        assert_close(ours[i], module.base(x) + 2.0 * update, **CLOSE)


def test_each_group_draws_a_dropout_mask_of_its_own() -> None:
    module = layer((2, 2), dropout=0.5).train()
    for factors in (module.group_a, module.group_b):
        factors["c"].data.copy_(factors["a+b"].data)
    first, second = module(torch.ones(8, 6, 5, dtype=torch.float64)).chunk(2)
    assert not torch.allclose(first, second)


def test_a_pair_starts_as_nothing(plain: tuple[Encoder, Tensor]) -> None:
    encoder, images = plain
    attachment = attach(METHODS["paper"], copy.deepcopy(encoder), TASKS)
    for levels in attachment.features(attachment.encoder(images)).values():
        assert_close(levels, encoder(images), **CLOSE)
