"""The papers' parameter counts and GMACs of Swin-T with HRNet-like decoders, to the digit that they print."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from mt_adapters_mtlora.mtlora import MTLoRA, MTLoRAPlus
from mt_core.accounting import count_parameters, gmacs, report
from mt_core.adapter import Adapter, StreamModule
from mt_core.decoder import Decoder
from mt_core.decoders.aspp import ASPP
from mt_core.decoders.hrnet import HRNet
from mt_core.frozen import Frozen
from mt_core.model import MultiTaskModel
from mt_core.site import Role, Site
from mt_core.streams import Streams
from mt_core.task import Task
from mt_core.tasks import Depth, HumanParts, Normals, Saliency, Segmentation

swin = pytest.importorskip("mt_backbones_swin.swin", reason="the papers' figures are for Swin-T: mt-backbones-swin")

SIZE = (448, 448)
NORMALS = Normals("normals")
PASCAL = (Segmentation("semseg", 21), HumanParts("human_parts"), Saliency("saliency"), NORMALS)
NYUD = (Segmentation("semseg", 40), NORMALS, Depth("depth"))
SITES = ["qkv", "proj", "fc1", "fc2"]
DEAD = 64 * (3072 + 768)  # the shared pair of the very last fc2 at r = 64


@dataclass
class Full(Adapter):
    """Full fine-tuning."""

    def adapt(self, site: Site, module: nn.Module, streams: Streams) -> nn.Module | None:
        return module


class Forked(StreamModule):
    """A frozen layer at which streams fork, each going through it with its own input."""

    def forward(self, x: Tensor) -> Tensor:
        return self.base(self.fork(x))  # type: ignore[no-any-return]


@dataclass
class Tree(Adapter):
    """TGLoRA's streams without its low-rank terms: so many groups per stage, forking at its first adapted layer."""

    groups: tuple[int, int, int, int]

    def adapt(self, site: Site, module: nn.Module, streams: Streams) -> nn.Module | None:
        tasks, alone = streams.tasks, self.groups[site.stage] - 1
        if site.role is not Role.qkv or len(streams) == alone + 1:
            return None
        return Forked(module, streams, streams.split([*([task] for task in tasks[:alone]), tasks[alone:]]))


def without(site: str) -> MTLoRA:
    return MTLoRA(rank=64, sites=[name for name in SITES if name != site])


def swin_tiny(adapter: Adapter, tasks: Sequence[Task], decoder: Decoder | None = None) -> MultiTaskModel:
    with torch.device("meta"):
        return MultiTaskModel(swin.SwinTiny().build(SIZE), adapter, decoder or HRNet(), tasks)


@pytest.mark.parametrize(
    ("adapter", "tasks", "trainable"),
    [
        pytest.param(MTLoRA(rank=16), PASCAL, 4_953_146, id="MTLoRA_Table_1_r16_4.95M"),
        pytest.param(MTLoRA(rank=32), PASCAL, 6_083_642, id="MTLoRA_Table_1_r32_6.08M"),
        pytest.param(MTLoRA(rank=64), PASCAL, 8_344_634, id="MTLoRA_Table_1_r64_8.34M"),
        pytest.param(MTLoRAPlus(rank=4), PASCAL, 2_573_114, id="MTLoRA_Table_1_plus_r4_2.57M"),
        pytest.param(MTLoRAPlus(rank=8), PASCAL, 3_148_346, id="MTLoRA_Table_1_plus_r8_3.15M"),
        pytest.param(MTLoRAPlus(rank=16), PASCAL, 4_298_810, id="MTLoRA_Table_1_plus_r16_4.30M"),
        pytest.param(Frozen(), PASCAL, 1_946_624, id="MTLoRA_Table_1_decoders_only_1.95M"),
        pytest.param(Full(), PASCAL, 29_464_442, id="full_fine_tuning_PASCAL"),
        pytest.param(without("fc1"), PASCAL, 6_816_314, id="MTLoRA_section_4.4_without_fc1"),
        pytest.param(without("fc2"), PASCAL, 6_816_314, id="MTLoRA_section_4.4_without_fc2"),
        pytest.param(without("proj"), PASCAL, 7_733_306, id="MTLoRA_section_4.4_without_proj"),
        pytest.param(without("qkv"), PASCAL, 7_214_138, id="MTLoRA_section_4.4_without_qkv"),
        pytest.param(MTLoRA(rank=64), NYUD, 7_810_478, id="TGLoRA_Table_2_MTLoRA_r64_NYUD"),
        pytest.param(Frozen(), NYUD, 1_481_588, id="TGLoRA_Table_2_decoders_only_NYUD"),
        pytest.param(Full(), NYUD, 28_999_406, id="TGLoRA_Table_2_full_fine_tuning_NYUD"),
    ],
)
def test_trainable_parameters(adapter: Adapter, tasks: Sequence[Task], trainable: int) -> None:
    assert count_parameters(swin_tiny(adapter, tasks), SIZE).trainable == trainable


def test_trainable_parameters_with_aspp_decoders() -> None:
    assert count_parameters(swin_tiny(MTLoRA(rank=32), PASCAL, ASPP()), SIZE).trainable == 16_580_186


def test_groups_are_the_terms_of_the_closed_form() -> None:
    rank, task_rank, T = 64, 4, len(PASCAL)
    groups = {name: c.trainable for name, c in count_parameters(swin_tiny(MTLoRA(), PASCAL), SIZE).groups.items()}
    assert groups.pop("adapter") == 16 * rank * 4416 + 12 * task_rank * 1440 * T
    for task in PASCAL:
        assert groups.pop(f"decoder.{task.name}") == 478_008 + 1081 * task.channels
    assert set(groups) == {"patch_embed", "norm", "merge", "pos_bias"}
    assert sum(groups.values()) == 1_599_546


def test_the_shared_pair_of_the_very_last_fc2_is_all_that_is_not_live() -> None:
    counts = count_parameters(swin_tiny(MTLoRA(rank=64), PASCAL), SIZE)
    assert DEAD == 245_760
    assert counts.trainable - counts.live == DEAD
    assert counts.groups["adapter"].trainable - counts.groups["adapter"].live == DEAD


def test_everything_is_live_where_the_tasks_have_no_pairs_of_their_own() -> None:
    counts = count_parameters(swin_tiny(MTLoRA(rank=64, task_rank=0), PASCAL), SIZE)
    assert counts.live == counts.trainable


def test_activation_checkpointing_does_not_change_what_is_live() -> None:
    model = swin_tiny(MTLoRA(rank=64), PASCAL)
    plain = count_parameters(model, SIZE)
    model.encoder.checkpointing = True
    assert count_parameters(model, SIZE) == plain


@pytest.mark.parametrize(
    ("adapter", "tasks", "printed"),
    [
        pytest.param(Frozen(), PASCAL[:1], "18.49", id="TGLoRA_Table_3_PASCAL_1_task"),
        pytest.param(Frozen(), PASCAL, "21.47", id="TGLoRA_Table_3_PASCAL_4_tasks_shared"),
        pytest.param(Frozen(), NYUD[:1], "18.56", id="TGLoRA_Table_3_NYUD_1_task"),
        pytest.param(Frozen(), NYUD, "20.53", id="TGLoRA_Table_3_NYUD_3_tasks_shared"),
        pytest.param(Tree((1, 2, 3, 4)), PASCAL, "49.95", id="TGLoRA_Table_3_PASCAL_groups_1_2_3_4"),
        pytest.param(Tree((1, 1, 2, 4)), PASCAL, "38.37", id="TGLoRA_section_9_groups_1_1_2_4"),
        pytest.param(Tree((1, 2, 2, 4)), PASCAL, "41.38", id="TGLoRA_section_9_groups_1_2_2_4"),
        pytest.param(Tree((1, 1, 2, 3)), NYUD, "34.65", id="TGLoRA_Table_3_NYUD_groups_1_1_2_3"),
    ],
)
def test_published_gmacs_at_448(adapter: Adapter, tasks: Sequence[Task], printed: str) -> None:
    assert f"{gmacs(swin_tiny(adapter, tasks), SIZE)['published']:.2f}" == printed


@pytest.mark.parametrize("tasks", [PASCAL[:1], PASCAL], ids=["1_task", "4_tasks"])
def test_published_gmacs_of_mtlora_add_only_the_modules_that_each_task_passes_alone(
    tasks: Sequence[Task],
) -> None:
    stages = [(112 >> i, 96 << i) for i in range(4)]  # side, width
    blocks = [side * side * (width + 4 * width) for side, width in stages]  # norm2 and GELU in the last block
    mergings = [side * side // 4 * (4 * width + 4 * width * 2 * width) for side, width in stages[:-1]]
    mtlora, plain = (gmacs(swin_tiny(adapter, tasks), SIZE)["published"] for adapter in (MTLoRA(), Frozen()))
    assert mtlora - plain == pytest.approx(len(tasks) * (sum(blocks) + sum(mergings)) / 1e9, rel=1e-9)


@pytest.mark.parametrize(("tasks", "printed"), [(PASCAL[:1], "25.66"), (PASCAL, "31.01")], ids=["1_task", "4_tasks"])
def test_full_gmacs_of_mtlora_r64_are_the_known_ones_less_the_dead_pair_which_is_never_computed(
    tasks: Sequence[Task], printed: str
) -> None:
    dead = 14 * 14 * DEAD / 1e9
    assert f"{gmacs(swin_tiny(MTLoRA(rank=64), tasks), SIZE)['full'] + dead:.2f}" == printed


def test_the_report_is_what_the_papers_print() -> None:
    told = report(swin_tiny(MTLoRA(rank=64), PASCAL), SIZE)
    assert (told["trainable"], told["live"]) == (8_344_634, 8_098_874)
    assert (told["total"], told["frozen"]) == (34_262_906, 25_918_272)
    assert told["mib"] == 31.83
    assert told["gmacs"] == {"published": 24.3, "full": 30.96, "image_size": [448, 448]}
