"""ToRA's factor form on stacked streams equals T separate passes with the full update tensor."""

from __future__ import annotations

import copy

import pytest
import tensorly
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.testing import assert_close

from mt_adapters_tora.tora import Measure, ToRA
from mt_adapters_tora.tucker import TuckerLinear, norm, squared
from mt_core.attachment import Attachment, attach
from mt_core.backbone import Encoder
from mt_core.errors import ConfigError
from mt_core.merging import merge
from mt_core.streams import Streams
from mt_core.testing.miniatures import architectures

TASKS = ("semseg", "depth", "normals")
RANKS = (3, 4, 2)
CLOSE = {"atol": 1e-9, "rtol": 1e-9}


@pytest.fixture(params=list(architectures()))
def plain(request: pytest.FixtureRequest) -> tuple[Encoder, Tensor]:
    torch.manual_seed(0)
    encoder, images = architectures()[request.param].miniature()
    return encoder.double().eval(), images.double()


def adapted(plain: Encoder, method: ToRA) -> Attachment:
    """The adapter in a copy of the encoder, with random factors."""
    attachment = attach(method, copy.deepcopy(plain), TASKS)
    attachment.encoder.eval()
    for module in attachment.encoder.modules():
        if isinstance(module, TuckerLinear):
            for parameter in (module.u1, module.u2, module.core, *module.u3.values()):
                nn.init.normal_(parameter, std=0.3)
    return attachment


def full_update(module: TuckerLinear, task: str) -> Tensor:
    """Eq. 4, literally: sum over m, n, l of G(m, n, l) U1(i, m) U2(j, n) U3(t, l). (d, k)"""
    return torch.einsum("mnl,im,jn,l->ij", module.core, module.u1, module.u2, module.u3[task])


def separate_pass(plain: Encoder, attachment: Attachment, images: Tensor, task: str) -> list[Tensor]:
    """One pass of the plain encoder with the weights W + s Delta W of one task, all of it materialised."""
    own = dict(attachment.encoder.named_parameters())
    weights = {}
    for name, value in plain.named_parameters():
        path, _, leaf = name.rpartition(".")
        module = attachment.encoder.get_submodule(path)
        if isinstance(module, TuckerLinear):
            base = getattr(module.base, leaf)
            weights[name] = base + module.scale * full_update(module, task) if leaf == "weight" else base
        else:
            weights[name] = own.get(name, value)
    return functional_call(plain, weights, (images,))


@pytest.mark.parametrize(
    "method",
    [
        ToRA(ranks=RANKS),
        ToRA(ranks=RANKS, sites=["qkv", "proj", "fc1", "fc2"], scale=1.5),
        ToRA(ranks=RANKS, first_block=1),
    ],
    ids=["paper", "every_layer", "later"],
)
def test_features_and_gradients_equal_separate_passes(plain: tuple[Encoder, Tensor], method: ToRA) -> None:
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


def test_every_task_starts_as_the_frozen_encoder(plain: tuple[Encoder, Tensor]) -> None:
    encoder, images = plain
    attachment = attach(ToRA(ranks=RANKS), copy.deepcopy(encoder), TASKS)
    for levels in attachment.features(attachment.encoder(images)).values():
        assert_close(levels, encoder(images), **CLOSE)


def test_each_task_merges_into_a_plain_encoder(plain: tuple[Encoder, Tensor]) -> None:
    encoder, images = plain
    attachment = adapted(encoder, ToRA(ranks=RANKS))
    features = attachment.features(attachment.encoder(images))
    for task in TASKS:
        merged = merge(attachment, task).encoder
        assert merged.state_dict().keys() == encoder.state_dict().keys()
        assert_close(merged(images), features[task], **CLOSE)


def test_one_task_alone_runs_one_encoder_pass(plain: tuple[Encoder, Tensor]) -> None:
    encoder, images = plain
    attachment = adapted(encoder, ToRA(ranks=RANKS))
    whole = attachment.features(attachment.encoder(images))
    attachment.select(["depth"])
    levels = attachment.encoder(images)
    assert all(len(level) == len(images) for level in levels)
    assert_close(attachment.features(levels)["depth"], whole["depth"], **CLOSE)


def test_a_task_at_a_time_ends_at_the_weights_of_the_stacked_form(plain: tuple[Encoder, Tensor]) -> None:
    encoder, images = plain[0].float(), plain[1].float()
    ended = []
    for passes in ([TASKS], [(task,) for task in TASKS]):
        torch.manual_seed(1)
        attachment = adapted(encoder, ToRA(ranks=RANKS, dropout=0.0))
        core = next(name for name, _ in attachment.encoder.named_parameters() if name.endswith("core"))
        start = attachment.encoder.get_parameter(core).detach().clone()
        optimizer = torch.optim.SGD([p for p in attachment.encoder.parameters() if p.requires_grad], lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            for tasks in passes:
                attachment.select(tasks)
                features = attachment.features(attachment.encoder(images))
                torch.stack([x.sin().mean() for levels in features.values() for x in levels]).sum().backward()
            optimizer.step()
        ended.append(attachment.encoder.state_dict())
    assert_close(*ended, atol=1e-6, rtol=1e-6)
    assert not torch.equal(ended[0][core], start)


def test_the_update_is_tensorlys_product_of_modes() -> None:
    torch.manual_seed(0)
    module = TuckerLinear(nn.Linear(7, 9).double(), Streams.trunk(TASKS), RANKS, 0.5, 0.0, 1.0, (), norm)
    nn.init.normal_(module.core)
    factors = [module.u1, module.u2, torch.stack([module.u3[task] for task in TASKS])]
    tensor = tensorly.tucker_to_tensor((module.core.detach().numpy(), [f.detach().numpy() for f in factors]))
    for t, task in enumerate(TASKS):
        assert_close(module.delta(task), 0.5 * torch.from_numpy(tensor[:, :, t]), **CLOSE)


@pytest.mark.parametrize("measure", [norm, squared])
def test_the_regulariser_has_the_terms_of_equation_5(measure: object) -> None:
    torch.manual_seed(0)
    module = TuckerLinear(
        nn.Linear(7, 9), Streams.trunk(TASKS), (2, 3, 4), 0.5, 0.0, 1.0, ("u1", "u2", "core"), measure
    )
    nn.init.normal_(module.core)
    matrices = [module.u1, module.u2, *(module.core[:, :, level] for level in range(4))]
    expected = [torch.linalg.norm(m.T @ m - torch.eye(m.shape[1])) for m in matrices]
    expected = [x**2 for x in expected] if measure is squared else expected
    assert_close(module.penalty(), torch.stack(expected))


def test_each_factor_can_be_left_out_of_the_regulariser() -> None:
    def terms(*names: str) -> Tensor | None:
        return TuckerLinear(nn.Linear(7, 9), Streams.trunk(TASKS), RANKS, 0.5, 0.0, 1.0, names, norm).penalty()

    assert terms() is None
    assert len(terms("u1")) == 1
    assert len(terms("core")) == RANKS[2]
    assert len(terms("u1", "u2", "core")) == 2 + RANKS[2]


def test_the_authors_regulariser_starts_near_2300_and_the_printed_one_near_3e8() -> None:
    torch.manual_seed(0)
    args = (nn.Linear(1024, 3072), Streams.trunk(TASKS), (32, 32, 8), 0.5, 0.1, 1.0, ("u1", "u2", "core"))
    layers = [TuckerLinear(*args, norm).penalty() for _ in range(2)]
    assert ToRA().pool(torch.cat(layers)).item() == pytest.approx(2.3e3, rel=0.03)
    printed = ToRA(measure=Measure.squared).pool(TuckerLinear(*args, squared).penalty())
    assert printed.item() == pytest.approx(3.4e8, rel=0.03)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ranks": (0, 1, 1)}, "expected three positive numbers p, q, v"),
        ({"dropout": 1.0}, "expected a probability below 1"),
        ({"first_block": -1}, "expected a block from 0, a scale above 0"),
        ({"sites": ["head"]}, "'head' is none of qkv"),
        ({"orthogonal": ["u3"]}, "'u3' is none of u1, u2, core"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ToRA(**options)
