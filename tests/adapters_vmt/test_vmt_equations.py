"""VMT-Adapter's forward is its paper's equations, written out literally, in float64, on every backbone."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from mt_adapters_vmt.parallel import ParallelAdapter
from mt_adapters_vmt.projections import KroneckerProjections, sum_of_kroneckers
from mt_adapters_vmt.vmt import VMTAdapter, VMTAdapterLite
from mt_core.attachment import Attachment, attach
from mt_core.backbone import Encoder
from mt_core.errors import MergeError
from mt_core.merging import merge
from mt_core.testing.miniatures import architectures, randomise

TASKS = ("semseg", "normals", "depth")
METHODS = {
    "vmt": VMTAdapter(),
    "vmt_other_knobs": VMTAdapter(ratio=2, gating=0.3),
    "vmt_frozen_trunk": VMTAdapter(gating=1.0),
    "vmt_lite": VMTAdapterLite(),
    "vmt_lite_m2": VMTAdapterLite(kronecker=2),
}
EXACT = {"atol": 1e-10, "rtol": 1e-10}


def _load_literal() -> ModuleType:
    spec = importlib.util.spec_from_file_location("vmt_literal", Path(__file__).with_name("vmt_literal.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


literal = _load_literal()


@pytest.fixture(params=list(architectures()))
def plain(request: pytest.FixtureRequest) -> tuple[Encoder, Tensor]:
    encoder, images = architectures()[request.param].miniature()
    return encoder.double().eval().requires_grad_(False), images.double()


def adapted(plain: Encoder, method: VMTAdapter, tasks: tuple[str, ...] = TASKS) -> Attachment:
    """The adapter in a copy of the encoder, moved off its start."""
    attachment = attach(method, copy.deepcopy(plain), tasks)
    randomise(trainable(attachment), std=0.2)
    return attachment


def trainable(attachment: Attachment) -> list[nn.Parameter]:
    return [p for p in attachment.encoder.parameters() if p.requires_grad]


def features(attachment: Attachment, images: Tensor) -> dict[str, list[Tensor]]:
    return attachment.features(attachment.encoder(images))


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_features_and_gradients_are_the_papers_equations(plain: tuple[Encoder, Tensor], method: VMTAdapter) -> None:
    encoder, images = plain
    attachment = adapted(encoder, method)
    ours = features(attachment, images)
    expected = {task: literal.features(encoder, attachment, images, task) for task in TASKS}
    weights = {task: [torch.randn_like(level) for level in levels] for task, levels in expected.items()}
    gradients = []
    for outputs in (ours, expected):
        loss = torch.stack([(x * w).mean() for t in TASKS for x, w in zip(outputs[t], weights[t], strict=True)]).sum()
        gradients.append(torch.autograd.grad(loss, trainable(attachment)))
    for task in TASKS:
        assert_close(ours[task], expected[task], **EXACT)
    for of_ours, of_theirs in zip(*gradients, strict=True):
        assert_close(of_ours, of_theirs, **EXACT)


def test_a_level_is_the_trunk_plus_the_terms_of_the_stages_blocks() -> None:
    swin = pytest.importorskip("mt_backbones_swin.swin", reason="mt-backbones-swin is not installed")
    encoder = swin.SwinNano(features=swin.FeaturePoint.before_merging).build((32, 64)).double().eval()
    images = torch.rand(2, 3, 32, 64, dtype=torch.float64)
    attachment = adapted(encoder.requires_grad_(False), VMTAdapter())
    given = features(attachment, images)
    generic = literal.trunk(encoder, attachment, images)  # f_g^j
    for task in TASKS:
        for stage, level in enumerate(given[task]):
            run = literal.Pass(task, stage)
            literal._with_literal_blocks(encoder, attachment, run)(images)
            assert len(run.terms) == 2  # blocks of the stage
            specific = sum(run.terms).permute(0, 3, 1, 2)  # f_i^j
            assert_close(level, generic[stage] + specific, **EXACT)


def test_the_trunk_never_hears_of_the_tasks(plain: tuple[Encoder, Tensor]) -> None:
    encoder, images = plain
    attachment = adapted(encoder, VMTAdapter())
    calls: list[tuple[int, ...]] = []
    for module in attachment.encoder.modules():
        if isinstance(module, ParallelAdapter):
            for part in (module.base, module.shared):
                part.register_forward_pre_hook(lambda _, args: calls.append(tuple(args[0].shape)))
    attachment.encoder(images)
    assert {shape[0] for shape in calls} == {len(images)}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_every_task_starts_as_the_frozen_encoder(plain: tuple[Encoder, Tensor], method: VMTAdapter) -> None:
    encoder, images = plain
    attachment = attach(method, copy.deepcopy(encoder), TASKS)
    for levels in features(attachment, images).values():
        assert_close(levels, encoder(images), **EXACT)


def test_with_alpha_still_at_one_every_task_has_the_whole_of_f_in_the_last_block() -> None:
    torch.manual_seed(0)
    encoder, images = next(iter(architectures().values())).miniature()
    attachment = adapted(encoder.eval(), VMTAdapter(gating=0.3))
    with torch.no_grad():
        for module in attachment.encoder.modules():
            if isinstance(module, ParallelAdapter):
                for task in TASKS:
                    module.alpha[task].fill_(1)
                    module.gamma[task].zero_()
    given = features(attachment, images)
    for task in TASKS[1:]:
        assert_close(given[task], given[TASKS[0]])


def test_one_task_alone_is_what_it_is_among_others(plain: tuple[Encoder, Tensor]) -> None:
    encoder, images = plain
    attachment = adapted(encoder, VMTAdapter())
    whole = features(attachment, images)
    attachment.select(["depth"])
    assert_close(features(attachment, images), {"depth": whole["depth"]}, **EXACT)
    attachment.select(["semseg", "depth"])
    assert_close(features(attachment, images), {task: whole[task] for task in ("semseg", "depth")}, **EXACT)


@pytest.mark.parametrize("backbone", architectures())
def test_gradients_with_recomputed_blocks_are_the_same_whichever_pass_is_undone_first(backbone: str) -> None:
    torch.manual_seed(0)
    encoder, images = architectures()[backbone].miniature()
    attachment = adapted(encoder.double(), VMTAdapter())
    attachment.encoder.train()
    batches = (images[:1].double(), images.double())
    gradients = []
    for checkpointing in (False, True):
        attachment.encoder.checkpointing = checkpointing
        attachment.encoder.zero_grad()
        torch.manual_seed(0)
        losses = [torch.stack([x.square().mean() for x in attachment.encoder(batch)]).sum() for batch in batches]
        for loss in losses:
            loss.backward()
        gradients.append([p.grad.clone() for p in trainable(attachment)])
        copied = copy.deepcopy(attachment.encoder)  # which nothing left of a pass prevents
        assert_close(copied.eval()(images.double()), attachment.encoder.eval()(images.double()), **EXACT)
        attachment.encoder.train()
    assert_close(gradients[1], gradients[0], **EXACT)


def test_the_kronecker_form_is_torchs_product() -> None:
    a, b = torch.randn(3, 3, 3, dtype=torch.float64), torch.randn(3, 8, 2, dtype=torch.float64)
    expected = sum(torch.kron(a[i], b[i]) for i in range(3))
    assert expected.shape == (24, 6)
    assert_close(sum_of_kroneckers(a, b), expected, atol=1e-12, rtol=1e-12)


def test_a_width_that_m_does_not_divide_is_as_if_zeros_were_appended() -> None:
    kind = {"dtype": torch.float64, "device": torch.device("cpu")}
    narrow, wide = KroneckerProjections(32, 8, 3, kind), KroneckerProjections(33, 9, 3, kind)
    for parameter, source in zip((wide.a, wide.b_down, wide.b_up), (narrow.a, narrow.b_down, narrow.b_up), strict=True):
        assert parameter.shape == source.shape
        parameter.data.copy_(source.data.normal_())
    x = torch.randn(5, 32, dtype=torch.float64)
    assert_close(narrow(x), wide(torch.cat([x, x.new_zeros(5, 1)], 1))[:, :32], **EXACT)


def test_the_lite_projections_start_with_the_spread_of_a_linear_layer() -> None:
    shared = KroneckerProjections(768, 192, 3, {"dtype": torch.float32, "device": torch.device("cpu")})
    spread, usual = sum_of_kroneckers(shared.a, shared.b_down).std(), nn.Linear(768, 192).weight.std()
    assert (spread / usual).item() == pytest.approx(1, abs=0.5)
    assert not shared(torch.randn(2, 768)).any()


def test_a_task_says_why_it_cannot_be_merged(plain: tuple[Encoder, Tensor]) -> None:
    with pytest.raises(
        MergeError, match="cannot be merged for task 'depth': it is a branch with a ReLU beside the MLP"
    ):
        merge(adapted(plain[0], VMTAdapter()), "depth")
