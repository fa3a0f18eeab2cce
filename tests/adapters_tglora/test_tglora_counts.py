"""The paper's parameter counts and GMACs of Swin-T with HRNet-like decoders, to the digit that it prints."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from mt_adapters_tglora.tglora import TGLoRA, Train
from mt_core.accounting import count_parameters, gmacs
from mt_core.decoders.hrnet import HRNet
from mt_core.model import MultiTaskModel
from mt_core.task import Task
from mt_core.tasks import Depth, HumanParts, Normals, Saliency, Segmentation

swin = pytest.importorskip("mt_backbones_swin.swin", reason="the paper's figures are for Swin-T: mt-backbones-swin")

SIZE = (448, 448)
NORMALS = Normals("normals")
PASCAL = (Segmentation("semseg", 21), HumanParts("human_parts"), Saliency("saliency"), NORMALS)
NYUD = (Segmentation("semseg", 40), NORMALS, Depth("depth"))


def swin_tiny(adapter: TGLoRA, tasks: Sequence[Task]) -> MultiTaskModel:
    with torch.device("meta"):
        return MultiTaskModel(swin.SwinTiny().build(SIZE), adapter, HRNet(), tasks)


@pytest.mark.parametrize(
    ("train", "rank", "tasks", "trainable"),
    [
        pytest.param("attn", 64, PASCAL, 3_200_000, id="Table_1_attn_3.20M"),
        pytest.param("attn", 32, PASCAL, 2_647_040, id="Table_5_attn_2.65M"),
        pytest.param("attn", 16, PASCAL, 2_370_560, id="Table_5_attn_2.37M"),
        pytest.param("attn_mlp", 64, PASCAL, 5_288_960, id="Table_1_attn_mlp_5.29M"),
        pytest.param("attn_mlp", 32, PASCAL, 3_814_400, id="Table_5_attn_mlp_3.81M"),
        pytest.param("attn_mlp", 16, PASCAL, 3_077_120, id="Table_5_attn_mlp_3.08M"),
        pytest.param("attn_mlp_others", 64, PASCAL, 6_888_506, id="Table_1_attn_mlp_others_6.89M"),
        pytest.param("attn_mlp_others", 32, PASCAL, 5_413_946, id="Table_5_attn_mlp_others_5.41M"),
        pytest.param("attn_mlp_others", 16, PASCAL, 4_676_666, id="Table_5_attn_mlp_others_4.68M"),
        pytest.param("attn", 64, NYUD, 3_150_836, id="Table_2_attn_3.15M"),
        pytest.param("attn_mlp", 64, NYUD, 5_932_916, id="Table_2_attn_mlp_5.93M"),
        pytest.param("attn_mlp_others", 64, NYUD, 7_532_462, id="Table_2_attn_mlp_others_7.53M"),
    ],
)
def test_trainable_parameters(train: str, rank: int, tasks: Sequence[Task], trainable: int) -> None:
    counts = count_parameters(swin_tiny(TGLoRA(rank=rank, train=Train[train]), tasks), SIZE)
    assert counts.trainable == trainable
    assert counts.live == trainable


def test_how_tasks_are_grouped_does_not_change_how_many_parameters_train() -> None:
    for groups in ([1, 1, 2, 4], [1, 2, 2, 4], [4, 4, 4, 4]):
        assert count_parameters(swin_tiny(TGLoRA(groups=groups), PASCAL), SIZE).trainable == 6_888_506


@pytest.mark.parametrize(
    ("groups", "tasks", "printed"),
    [
        pytest.param(None, PASCAL, "49.95", id="Table_3_PASCAL_groups_1_2_3_4"),
        pytest.param([1, 1, 2, 4], PASCAL, "38.37", id="section_9_groups_1_1_2_4"),
        pytest.param([1, 2, 2, 4], PASCAL, "41.38", id="section_9_groups_1_2_2_4"),
        pytest.param(None, NYUD, "34.65", id="Table_3_NYUD_groups_1_1_2_3"),
    ],
)
def test_published_gmacs_at_448(groups: list[int] | None, tasks: Sequence[Task], printed: str) -> None:
    assert f"{gmacs(swin_tiny(TGLoRA(groups=groups), tasks), SIZE)['published']:.2f}" == printed
