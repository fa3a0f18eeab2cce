"""Accounting: what is counted as trainable, live and multiplied, on an encoder small enough to count by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mt_core.accounting import Count, costs, count_parameters, gmacs, report
from mt_core.adapter import Adapter, SiteModule, StreamModule
from mt_core.backbone import Encoder, Level
from mt_core.decoder import Decoder
from mt_core.decoders.hrnet import HRNet
from mt_core.frozen import Frozen
from mt_core.model import MultiTaskModel
from mt_core.site import Residual, Role, Site, Tap
from mt_core.streams import Streams
from mt_core.task import Task
from mt_core.tasks import Depth, Normals

TASKS = (Normals("normals"), Depth("depth"))
SIZE = (6, 8)
N, C = 12, 4  # tokens of a picture of SIZE, channels


class Toy(Encoder):
    """A strided convolution and one attention layer of a single head, C wide."""

    levels = (Level(C, 2),)
    mean = std = (0.5, 0.5, 0.5)

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, C, 2, stride=2)
        self.position = nn.Parameter(torch.zeros(C))  # at no site
        self.norm, self.qkv, self.proj = nn.LayerNorm(C), nn.Linear(C, 3 * C), nn.Linear(C, C, bias=False)
        self.residual, self.tap = Residual(), Tap()

    def sites(self) -> list[Site]:
        return [
            Site("patch_embed", Role.patch_embed, 0, reads=""),
            Site("norm", Role.norm, 0),
            Site("qkv", Role.qkv, 0, last=True, parts=(C, C, C)),
            Site("proj", Role.proj, 0, last=True),
            Site("residual", Role.join, 0, reads="patch_embed"),
            Site("tap", Role.tap, 0),
        ]

    def forward(self, images: Tensor) -> list[Tensor]:
        pixels = self.patch_embed(images)  # (B, C, h, w)
        x = pixels.flatten(2).mT + self.position  # (B, N, C)
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=-1)
        x = self.residual(x, self.proj((q @ k.mT).softmax(-1) @ v))
        level, _ = self.tap(x)
        return [level.mT.unflatten(2, pixels.shape[2:])]


class LowRank(SiteModule):
    """A pair of rank 2 whose B is zero, and beside it a parameter that nothing reads."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__(base)
        self.a = nn.Parameter(torch.randn(base.in_features, 2))
        self.b = nn.Parameter(torch.zeros(2, base.out_features))
        self.forgotten = nn.Parameter(torch.zeros(7))

    def forward(self, x: Tensor) -> Tensor:
        return torch.add(self.base(x), x @ self.a @ self.b)


class PerTask(StreamModule):
    """Forks into one stream per task, each with a full matrix of its own; the base is called before the fork."""

    def __init__(self, base: nn.Linear, streams: Streams) -> None:
        super().__init__(base, streams, streams.per_task())
        self.own = nn.ParameterDict(
            {str(stream): torch.zeros(base.in_features, base.out_features) for stream in self.full_after}
        )

    def forward(self, x: Tensor) -> Tensor:
        own = [x @ self.own[str(stream)] for stream in self.after]
        return self.fork(self.base(x)) + torch.cat(own)


@dataclass
class Toys(Adapter):
    """Low-rank at proj, beside an unfrozen base if asked; norm and patch embedding trained; qkv per task if asked."""

    unfreeze: bool = False
    per_task: bool = False

    def adapt(self, site: Site, module: nn.Module, streams: Streams) -> nn.Module | None:
        if site.role in (Role.norm, Role.patch_embed):
            return module
        if site.role is Role.proj and isinstance(module, nn.Linear):
            return LowRank(module.requires_grad_(self.unfreeze))
        if site.role is Role.qkv and self.per_task and isinstance(module, nn.Linear):
            return PerTask(module, streams)
        return None


@dataclass
class Wrapped(Adapter):
    """A norm after proj, in a plain container."""

    def adapt(self, site: Site, module: nn.Module, streams: Streams) -> nn.Module | None:
        return nn.Sequential(module, nn.LayerNorm(C)) if site.role is Role.proj else None


@dataclass(kw_only=True)
class Single(Decoder):
    """One module on the only level."""

    module: nn.Module

    def build(self, task: Task, encoder: Encoder) -> nn.Module:
        return nn.Sequential(First(), self.module)


class First(nn.Module):
    """Takes the level, and draws a number as layers that drop themselves do."""

    def forward(self, features: list[Tensor]) -> Tensor:
        torch.rand(1, device="cpu")
        return features[0]


HRNET = HRNet(widths=[2], expansion=3)


def toy(adapter: Adapter, decoder: Decoder = HRNET, tasks: tuple[Task, ...] = TASKS) -> MultiTaskModel:
    return MultiTaskModel(Toy(), adapter, decoder, tasks)


def test_every_parameter_is_in_one_group_and_frozen_ones_in_none() -> None:
    model = toy(Toys())
    counts = count_parameters(model, SIZE)
    head = C * 2 + (2 * 6 + 6) + 2 * 6  # narrow, mix, batch norm; the classifier has 7 per channel
    assert counts.groups == {
        "adapter": Count(C * 2 + 2 * C + 7, C * 2 + 2 * C),
        "patch_embed": Count(3 * 2 * 2 * C + C, 3 * 2 * 2 * C + C),
        "norm": Count(2 * C, 2 * C),
        "decoder.normals": Count(head + 3 * 7, head + 3 * 7),
        "decoder.depth": Count(head + 7, head + 7),
    }
    assert counts.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert counts.total == sum(p.numel() for p in model.parameters())
    assert counts.frozen == C + (C * 3 * C + 3 * C) + C * C  # position, qkv, the base of proj
    assert counts.mib == counts.trainable * 4 / 2**20


def test_live_leaves_out_what_no_logits_depend_on_but_not_what_has_a_zero_gradient_now() -> None:
    counts = count_parameters(toy(Toys()), SIZE)
    assert counts.trainable - counts.live == 7  # `forgotten`; A is live although B is zero


def test_a_task_that_is_not_selected_still_counts_as_live_and_the_selection_stays() -> None:
    model = toy(Toys(per_task=True))
    everything = count_parameters(model, SIZE)
    model.select(["depth"])
    assert count_parameters(model, SIZE) == everything
    assert everything.trainable - everything.live == 7
    assert model.selected == ("depth",)


def test_a_base_that_a_site_module_unfreezes_counts_under_its_role() -> None:
    groups = count_parameters(toy(Toys(unfreeze=True)), SIZE).groups
    assert groups["proj"] == Count(C * C, C * C)
    assert groups["adapter"] == count_parameters(toy(Toys()), SIZE).groups["adapter"]


def test_a_replacement_that_is_no_site_module_counts_under_the_role_of_its_site() -> None:
    groups = count_parameters(toy(Wrapped()), SIZE).groups
    assert groups["proj"] == Count(2 * C, 2 * C)
    assert groups["adapter"] == Count(0, 0)


def test_a_trained_parameter_at_no_site_counts_under_backbone() -> None:
    model = toy(Frozen())
    model.encoder.get_parameter("position").requires_grad_(True)
    assert count_parameters(model, SIZE).groups["backbone"] == Count(C, C)


def test_a_parameter_used_twice_counts_once() -> None:
    model = toy(Frozen())
    before = count_parameters(model, SIZE)
    first, second = (model.get_submodule(f"decoders.{name}.narrow.0") for name in ("normals", "depth"))
    second.weight = first.weight
    after = count_parameters(model, SIZE)
    assert before.total - after.total == before.trainable - after.trainable == C * 2


def test_a_model_with_nothing_to_train_has_nothing_live() -> None:
    counts = count_parameters(toy(Frozen()).requires_grad_(False), SIZE)
    assert (counts.trainable, counts.live) == (0, 0)


def test_a_picture_of_one_position_can_be_counted_in_spite_of_batch_norm() -> None:
    assert count_parameters(toy(Toys()), (2, 2)) == count_parameters(toy(Toys()), SIZE)
    assert gmacs(toy(Toys()), (2, 2))["full"] > 0


def test_a_model_without_values_counts_the_same() -> None:
    with torch.device("meta"):
        shapes = toy(Toys(per_task=True))
    assert report(shapes, SIZE) == report(toy(Toys(per_task=True)), SIZE)


def test_counting_leaves_the_model_as_it_was() -> None:
    model = toy(Toys(per_task=True))
    model.encoder.eval()
    model.select(["normals"])
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    report(model, SIZE)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is not None and bool((parameter.grad == 1).all()) for parameter in model.parameters())
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks for module in model.modules())
    assert set(model(torch.rand(1, 3, *SIZE))) == {"normals"}


def test_counting_draws_no_random_numbers() -> None:
    model = toy(Toys(), Single(module=nn.Dropout()))
    before = torch.get_rng_state()
    report(model, SIZE)
    assert torch.equal(torch.get_rng_state(), before)


def products(*shapes: tuple[int, ...]) -> float:
    """GMAC of matrix products, each given as rows x inner x columns."""
    return sum(torch.Size(shape).numel() for shape in shapes) / 1e9


def embedding_and_heads(*channels: int) -> list[tuple[int, ...]]:
    heads = [shape for out in channels for shape in ((N, C, 2), (N, 2, 6), (N, 6, out))]
    return [(N, 3 * 2 * 2, C), *heads]


def test_full_is_every_matrix_product_and_convolution() -> None:
    expected = products((N, C, 3 * C), (N, C, N), (N, N, C), (N, C, C), *embedding_and_heads(3, 1))
    assert gmacs(toy(Frozen()), SIZE)["full"] == pytest.approx(expected, rel=1e-12)


def test_full_counts_a_shared_product_once_and_what_follows_a_fork_per_stream() -> None:
    trunk = [(N, C, 3 * C), *embedding_and_heads(3, 1)]
    stream = [(N, C, 3 * C), (N, C, N), (N, N, C), (N, C, C), (N, C, 2), (N, 2, C)]
    model = toy(Toys(per_task=True))
    assert gmacs(model, SIZE)["full"] == pytest.approx(products(*trunk, *stream, *stream), rel=1e-12)


def test_only_the_selected_tasks_are_paid_for() -> None:
    model, alone = toy(Toys(per_task=True)), toy(Toys(per_task=True), tasks=TASKS[1:])
    model.select(["depth"])
    assert gmacs(model, SIZE) == gmacs(alone, SIZE)


def test_published_counts_modules_and_neither_attention_nor_low_rank_products() -> None:
    expected = products(
        (N, C, 3 * C), (3 * C,), (N, C, C),  # the Linears, one bias
        (N, C),  # layer norm
        *embedding_and_heads(3, 1), (N, C),  # the convolutions, the bias of the first,
        (N, 6), (N, 3), (N, 6), (N, 1),  # ... and of the heads' second and third
        (N, 6, 2), (N, 6, 2), (N, 6), (N, 6),  # batch norm, affine, and ReLU
    )  # fmt: skip
    assert gmacs(toy(Frozen()), SIZE)["published"] == pytest.approx(expected, rel=1e-12)


def test_published_counts_a_frozen_module_with_the_rows_it_is_given() -> None:
    plain, forked = gmacs(toy(Frozen()), SIZE)["published"], gmacs(toy(Toys(per_task=True)), SIZE)["published"]
    assert forked - plain == pytest.approx(products((N, C, C)), rel=1e-9)  # proj of the second stream


@pytest.mark.parametrize(
    ("module", "macs"),
    [
        (nn.GELU(), N * C),
        (nn.LayerNorm([3, 4]), N * C),
        (nn.GroupNorm(2, C), 2 * N * C),
        (nn.InstanceNorm2d(C), N * C),
        (nn.BatchNorm2d(C, affine=False), N * C),
        (nn.Conv2d(C, 8, 3, padding=1, groups=2, bias=False), N * 9 * 2 * 8),
        (nn.ConvTranspose2d(C, 8, 2, stride=2), 4 * N * (4 * C * 8 + 8)),
        (nn.AvgPool2d(2), 0),
        (nn.Identity(), 0),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, nn.Module) else str(x),
)
def test_published_rule_of(module: nn.Module, macs: int) -> None:
    without, with_it = (toy(Frozen(), Single(module=m), TASKS[:1]) for m in (nn.Identity(), module))
    difference = gmacs(with_it, SIZE)["published"] - gmacs(without, SIZE)["published"]
    assert difference == pytest.approx(macs / 1e9, rel=1e-9, abs=1e-15)


def test_the_encoders_part_of_the_cost_is_the_models_without_its_decoders() -> None:
    model = toy(Frozen()).eval().requires_grad_(False)
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        model.encoder(torch.rand(1, 3, *SIZE, dtype=model.mean.dtype, device=model.mean.device))
    found = costs(toy(Frozen()), SIZE)
    assert found["encoder"]["full"] == pytest.approx(counted.get_total_flops() / 2e9, rel=1e-12)
    assert found["model"] == gmacs(toy(Frozen()), SIZE)
    assert all(found["encoder"][name] < found["model"][name] for name in ("published", "full"))


def test_the_report_is_json_and_adds_up() -> None:
    told = report(toy(Toys()), SIZE)
    assert json.loads(json.dumps(told)) == told
    assert told["trainable"] == sum(group["trainable"] for group in told["groups"].values())
    assert told["live"] == sum(group["live"] for group in told["groups"].values()) == told["trainable"] - 7
    assert told["total"] == told["trainable"] + told["frozen"]
    assert told["gmacs"]["image_size"] == [6, 8]
    for name, value in gmacs(toy(Toys()), SIZE).items():
        assert told["gmacs"][name] == pytest.approx(value, rel=1e-3)
        assert name in told["convention"]
