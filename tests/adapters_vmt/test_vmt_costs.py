"""VMT-Adapter has the paper's parameter counts, and costs the same for eight tasks as for one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mt_adapters_vmt.vmt import VMTAdapter, VMTAdapterLite
from mt_core.accounting import count_parameters, gmacs
from mt_core.adapter import Adapter
from mt_core.backbone import Encoder
from mt_core.decoder import Decoder
from mt_core.decoders.hrnet import HRNet
from mt_core.discovery import registry
from mt_core.model import MultiTaskModel
from mt_core.options import from_dict
from mt_core.site import Role
from mt_core.task import Task
from mt_core.tasks import HumanParts, Normals, Saliency, Segmentation

SIZE = (448, 448)
PASCAL = (Segmentation("semseg", 21), HumanParts("human_parts"), Saliency("saliency"), Normals("normals"))
SWIN = {"features": "before_merging"}  # as timm and the paper take them


class FirstChannel(nn.Module):
    """Hands out what it is given."""

    def forward(self, levels: list[Tensor]) -> Tensor:
        return levels[0][:, :1]


@dataclass(kw_only=True)
class Free(Decoder):
    """Costs nothing, so that the encoder's cost is left."""

    def build(self, task: Task, encoder: Encoder) -> nn.Module:
        return FirstChannel()


def model(
    backbone: str, adapter: Adapter, tasks: tuple[Task, ...], decoder: Decoder, size: tuple[int, int], **options: Any
) -> MultiTaskModel:
    cls = registry("backbones")[backbone]
    with torch.device("meta"):
        return MultiTaskModel(from_dict(cls, options, backbone).build(size), adapter, decoder, tasks)


@pytest.mark.parametrize(
    ("adapter", "trainable", "printed"),
    [
        pytest.param(VMTAdapter(ratio=1), 4_361_664, "4.36", id="Table_3_rho_1"),
        pytest.param(VMTAdapter(ratio=2), 2_205_120, "2.21", id="Table_3_rho_2"),
        pytest.param(VMTAdapter(ratio=4), 1_126_848, "1.13", id="Table_3_rho_4"),
        pytest.param(VMTAdapter(ratio=8), 587_712, "0.59", id="Table_3_rho_8"),
        pytest.param(VMTAdapterLite(kronecker=3), 399_492, "0.40", id="Table_3_lite_m_3"),
        pytest.param(VMTAdapterLite(kronecker=6), 222_048, "0.22", id="Table_3_lite_m_6"),
        pytest.param(VMTAdapterLite(kronecker=12), 150_336, "0.15", id="Table_3_lite_m_12"),
    ],
)
def test_counts_are_the_papers_and_all_of_it_is_live(adapter: Adapter, trainable: int, printed: str) -> None:
    pytest.importorskip("mt_backbones_swin", reason="the paper's figures are for Swin-T: mt-backbones-swin")
    counts = count_parameters(model("swin_tiny", adapter, PASCAL, HRNet(), SIZE, **SWIN), SIZE)
    assert counts.groups["adapter"].trainable == trainable
    assert counts.groups["adapter"].live == trainable
    assert {name for name in counts.groups if not name.startswith("decoder.")} == {"adapter"}
    assert f"{trainable / 1e6:.2f}" == printed


def test_the_count_in_closed_form() -> None:
    pytest.importorskip("mt_backbones_swin", reason="the paper's figures are for Swin-T: mt-backbones-swin")
    widths, T = [96] * 2 + [192] * 2 + [384] * 6 + [768] * 2, 4
    squares, sum_ = sum(d * d for d in widths), sum(widths)
    assert 2 * squares // 4 + (2 + 1 + 2 * T) * sum_ == 1_126_848  # W, LayerNorm, bias, alpha and gamma
    assert 2 * squares // 4 // 3 + 12 * 3**3 + (1 + 2 * T) * sum_ == 399_492  # B, A in each block, bias, alpha, gamma


LARGE = pytest.mark.skipif(os.environ.get("MT_EXHAUSTIVE") != "1", reason="set MT_EXHAUSTIVE=1: only more blocks")


@pytest.mark.parametrize("adapter", [VMTAdapter(), VMTAdapterLite()], ids=["vmt", "vmt_lite"])
@pytest.mark.parametrize(
    ("backbone", "size", "options"),
    [
        ("swin_tiny", SIZE, SWIN),
        pytest.param("swin_base", SIZE, SWIN, marks=LARGE),
        ("sam_vit_b", (1024, 1024), {}),
        pytest.param("sam_vit_l", (1024, 1024), {}, marks=LARGE),
        ("pvt_small", SIZE, {}),
        ("pvt_v2_b2", SIZE, {}),
    ],
)
def test_the_encoder_costs_the_same_for_eight_tasks(
    adapter: Adapter, backbone: str, size: tuple[int, int], options: dict[str, Any]
) -> None:
    if backbone not in registry("backbones"):
        pytest.skip(f"{backbone} is not installed")
    one, eight = (_model_of(n, backbone, adapter, size, options) for n in (1, 8))
    costs = [gmacs(built, size)["full"] * 1e9 + _elementwise(built, size) for built in (one, eight)]
    assert costs[1] / costs[0] <= 1.05


@pytest.mark.parametrize("adapter", [VMTAdapter(), VMTAdapterLite()], ids=["vmt", "vmt_lite"])
def test_by_the_published_convention_swin_costs_exactly_the_same(adapter: Adapter) -> None:
    pytest.importorskip("mt_backbones_swin", reason="the paper's figures are for Swin-T: mt-backbones-swin")
    one, eight = (gmacs(_model_of(n, "swin_tiny", adapter, SIZE, SWIN), SIZE) for n in (1, 8))
    assert one == eight


def test_a_task_more_costs_its_scale_and_shift_and_nothing_that_is_a_product_of_matrices() -> None:
    pytest.importorskip("mt_backbones_swin", reason="the paper's figures are for Swin-T: mt-backbones-swin")
    built = _model_of(2, "swin_tiny", VMTAdapter(), SIZE, SWIN)
    tokens = [112 * 112 >> 2 * i for i in range(4)]
    blocks = [n * (96 << i) * depth for i, (n, depth) in enumerate(zip(tokens, (2, 2, 6, 2), strict=True))]
    assert _elementwise(built, SIZE) == 2 * sum(blocks)


def _model_of(
    tasks: int, backbone: str, adapter: Adapter, size: tuple[int, int], options: dict[str, Any]
) -> MultiTaskModel:
    named = tuple(Segmentation(f"task{i}", 2) for i in range(tasks))
    return model(backbone, adapter, named, Free(), size, **options)


def _elementwise(built: MultiTaskModel, size: tuple[int, int]) -> int:
    """Multiply-accumulates of eq. 4, which no counter of matrix products sees: one for each task, token and channel."""
    elements: list[int] = []
    hooks = [
        built.encoder.get_submodule(site.path).base.register_forward_hook(
            lambda *call: elements.append(call[2].numel())
        )
        for site in built.attachment.sites
        if site.role is Role.mlp
    ]
    with torch.no_grad():
        built.eval()(torch.empty(1, 3, *size, device="meta"))
    for hook in hooks:
        hook.remove()
    return sum(elements) * len(built.tasks)
