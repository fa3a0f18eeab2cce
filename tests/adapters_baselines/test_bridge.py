"""PEFT's layers stand at sites as they are: identity at the start, training, merging, one copy for each task."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from mt_adapters_baselines.bridge import REFUSED, SharedPeft, TaskPeft, adapted
from mt_adapters_baselines.peft import Peft
from mt_core.accounting import count_parameters
from mt_core.attachment import attach
from mt_core.decoders.hrnet import HRNet
from mt_core.errors import ConfigError, MergeError
from mt_core.merging import merge
from mt_core.model import MultiTaskModel
from mt_core.site import Role, Site
from mt_core.streams import Streams
from mt_core.tasks import Depth, Normals
from mt_core.testing import AdapterConformance
from mt_core.testing.miniatures import architectures, randomise

peft = pytest.importorskip("peft", reason="PEFT is an extra: pip install 'mt-adapters-baselines[peft]'")

TASKS = ("semseg", "depth", "normals")
SITE = Site("blocks.0.attn.qkv", Role.qkv, stage=0)
METHODS: dict[str, dict[str, Any]] = {
    "lora": {"r": 2},
    "loha": {"r": 2, "alpha": 4},
    "lokr": {"r": 2, "alpha": 4},
    "oft": {"oft_block_size": 4},
    "boft": {"boft_block_size": 4},
    "hra": {"r": 2},
}
CLOSE = {"atol": 1e-9, "rtol": 1e-9}


class TestShared(AdapterConformance):
    entry = Peft(method="hra", per_task=False, options={"r": 2})


def layer(method: str = "loha", per_task: bool = True, **options: Any) -> SharedPeft | TaskPeft:
    base = nn.Linear(16, 24).double().requires_grad_(False)
    module = Peft(method, per_task, options=options or METHODS[method]).adapt(SITE, base, Streams.trunk(TASKS))
    assert isinstance(module, TaskPeft if per_task else SharedPeft)
    return module


def trainable(module: nn.Module) -> list[nn.Parameter]:
    return [p for p in module.parameters() if p.requires_grad]


@pytest.mark.parametrize("per_task", [False, True], ids=["shared", "per_task"])
@pytest.mark.parametrize("method", METHODS)
def test_a_method_starts_as_the_frozen_layer(method: str, per_task: bool) -> None:
    module, x = layer(method, per_task), torch.randn(2, 3, 5, 16).double()
    expected = module.base(x).repeat(len(TASKS) if per_task else 1, 1, 1, 1)
    assert_close(module(x), expected, **CLOSE)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_learns(method: str) -> None:
    module, x = layer(method, per_task=False), torch.randn(64, 1, 16).double()
    with torch.no_grad():
        target = x @ (module.base.weight @ (torch.eye(16).double() + 0.05 * torch.randn(16, 16).double())).T
        target += module.base.bias
    optimiser = torch.optim.Adam(trainable(module), lr=0.02)
    losses = []
    for _ in range(60):
        loss = (module(x) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert not any(p.requires_grad for p in module.base.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_tasks_have_copies_of_their_own_that_merge(method: str) -> None:
    module, x = layer(method), torch.randn(2, 5, 16).double()
    randomise(trainable(module), 0.3)
    found = module(x).unflatten(0, (len(TASKS), 2))
    for task, y in zip(TASKS, found, strict=True):
        assert_close(y, x @ (module.base.weight + module.delta(task)).T + module.base.bias, **CLOSE)
    assert not torch.allclose(found[0], found[1])
    gradients = torch.autograd.grad(found[0].sum(), list(module.layers["depth"].parameters()), allow_unused=True)
    assert all(gradient is None or not gradient.any() for gradient in gradients)


def test_lora_is_w_plus_alpha_over_r_b_a() -> None:
    module, x = layer("lora", r=2, lora_alpha=6), torch.randn(2, 5, 16).double()
    randomise(trainable(module), 0.3)
    found = module(x).unflatten(0, (len(TASKS), 2))
    for task, y in zip(TASKS, found, strict=True):
        weights = {name.split(".")[0]: value for name, value in module.layers[task].named_parameters()}
        update = 3.0 * weights["lora_B"] @ weights["lora_A"]
        assert_close(y, x @ (module.base.weight + update).T + module.base.bias, **CLOSE)


def test_dora_is_an_option_of_lora() -> None:
    module = layer("lora", r=2, use_dora=True)
    randomise(trainable(module), 0.3)
    x = torch.randn(2, 5, 16).double()
    found = module(x)[:2]
    assert_close(found, x @ (module.base.weight + module.delta("semseg")).T + module.base.bias, **CLOSE)
    assert sum(p.numel() for p in trainable(module)) == len(TASKS) * (2 * (16 + 24) + 24)


def test_the_frozen_layer_is_registered_once() -> None:
    names = [name for name in layer("loha").state_dict() if name.endswith(("weight", "bias"))]
    assert names == ["base.weight", "base.bias"]


def test_what_changes_the_bias_too_is_not_merged() -> None:
    encoder, images = next(iter(architectures().values())).miniature()
    randomise(list(encoder.parameters()), 0.1)  # miniatures start with biases of zero
    attachment = attach(Peft("ia3", sites=["fc1"]), encoder, TASKS)
    randomise([p for p in encoder.parameters() if p.requires_grad], 0.3)
    assert len(attachment.features(encoder(images))) == len(TASKS)
    with pytest.raises(MergeError, match="PEFT cannot express this method as a change of the layer's weight"):
        merge(attachment, "depth")


def test_a_method_without_merging_is_not_merged() -> None:
    module = layer("lora", per_task=False)
    module.layer.merge = None  # as in methods of PEFT that have none
    assert module.delta("depth") is None


def test_norms_can_be_adapted_where_the_method_does() -> None:
    encoder, images = next(iter(architectures().values())).miniature()
    plain = encoder(images)
    attachment = attach(Peft("ln_tuning", sites=["norm"]), encoder, TASKS)
    for levels in attachment.features(encoder(images)).values():
        assert_close(levels, plain, atol=1e-5, rtol=1e-5)


def test_counts_need_no_values() -> None:
    with torch.device("meta"):
        encoder, images = next(iter(architectures().values())).miniature()
        tasks = (Depth("depth", 1), Normals("normals", 3))
        model = MultiTaskModel(encoder, Peft("lora", options={"r": 2}), HRNet(), tasks)
    widths = [m.base.in_features + m.base.out_features for m in encoder.modules() if isinstance(m, TaskPeft)]
    counts = count_parameters(model, tuple(images.shape[-2:]))
    assert counts.groups["adapter"].trainable == counts.groups["adapter"].live == 2 * len(tasks) * sum(widths)


@pytest.mark.parametrize("method", REFUSED)
def test_what_cannot_work_on_single_layers_is_refused_by_name(method: str) -> None:
    with pytest.raises(ConfigError, match=f"method={method} cannot adapt the layers of an encoder one by one: ") as e:
        Peft(method)
    assert REFUSED[method] in str(e.value)


def test_every_method_of_peft_is_refused_or_stands_at_a_layer() -> None:
    small: dict[str, dict[str, Any] | None] = {
        "adamss": None,  # wants scikit-learn
        "c3a": {"block_size": 8},
        "fourierft": {"n_frequency": 20},
        "miss": {"r": 4},
        "psoft": {"r": 4},
        "road": {"group_size": 8},
        "shira": {"r": 2},
        "waveft": {"n_frequency": 20},
    }
    for kind in peft.PEFT_TYPE_TO_CONFIG_MAPPING:
        method = kind.name.lower()
        if method not in REFUSED and (options := small.get(method, {})) is not None:
            module = Peft(method, options=options).adapt(SITE, nn.Linear(16, 24), Streams.trunk(TASKS))
            assert module(torch.randn(2, 3, 5, 16)).shape == (6, 3, 5, 24), method
            assert trainable(module), method


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "lorra"}, r"PEFT [\d.]+ has no such method; it has .*loha"),
        ({"options": {"rank": 4}}, r"loha has no option 'rank'; it has .*alpha"),
        ({"options": {"target_modules": ["x"]}}, "loha has no option 'target_modules'"),
        (
            {"method": "lora", "options": {"lora_bias": True, "init_lora_weights": "eva"}},
            "PEFT refuses them for lora",
        ),
        ({"sites": ["head"]}, "'head' is none of qkv"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Peft(**options)


@pytest.mark.parametrize(
    ("options", "role", "module", "message"),
    [
        (
            {"method": "loha", "sites": ["norm"]},
            Role.norm,
            nn.LayerNorm(8),
            r"cannot adapt at \(LayerNorm\) with options",
        ),
        (
            {"method": "lora", "options": {"init_lora_weights": "pissa"}},
            Role.qkv,
            nn.Linear(8, 8),
            "it changes or trains the frozen layer itself, which all tasks share",
        ),
        (
            {"method": "lora", "options": {"bias": "all"}},
            Role.qkv,
            nn.Linear(8, 8),
            "it changes or trains the frozen layer itself, which all tasks share",
        ),
        ({"method": "c3a", "options": {"block_size": 7}}, Role.qkv, nn.Linear(8, 8), "block size should be a factor"),
    ],
)
def test_a_layer_that_a_method_cannot_adapt_is_refused(
    options: dict[str, Any], role: Role, module: nn.Module, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Peft(**options).adapt(Site("at", role, 0), module, Streams.trunk(TASKS))


def test_a_layer_that_peft_takes_apart_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peft, "inject_adapter_in_model", lambda config, model, **_: model)
    with pytest.raises(ValueError, match="PEFT: Linear does not keep the Linear as it is"):
        adapted(nn.Linear(8, 8), peft.LoHaConfig())


def test_without_peft_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"adapter peft needs the package peft.*pip install 'mt-adapters"):
        Peft()
