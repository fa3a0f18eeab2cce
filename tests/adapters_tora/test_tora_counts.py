"""ToRA on mSAM (SAM ViT-L) has the papers' parameter counts, to the digit."""

from __future__ import annotations

import pytest
import torch

from mt_adapters_tora.tora import ToRA
from mt_core.accounting import count_parameters
from mt_core.model import MultiTaskModel
from mt_core.task import Task
from mt_core.tasks import Depth, HumanParts, Normals, Saliency, Segmentation

sam = pytest.importorskip("mt_backbones_sam.sam", reason="mt-backbones-sam is not installed")
decoder = pytest.importorskip("mt_backbones_sam.sam_mask", reason="mt-backbones-sam is not installed")

NYU = (Segmentation("semseg", 13), Depth("depth", 1), Normals("normals", 3))
CITYSCAPES = (Segmentation("semseg", 7), Depth("depth", 1))
PASCAL = (Segmentation("semseg", 21), HumanParts("human_parts", 7), Saliency("saliency", 1), Normals("normals", 3))

COUNTS = {  # ranks, tasks -> trainable parameters, and "Param (M)" as printed: MiB of fp32
    "nyuv2_32_32_8_table_1": ((32, 32, 8), NYU, 15_620_588, 59.59),
    "nyuv2_32_32_4_table_4": ((32, 32, 4), NYU, 15_521_996, 59.21),
    "nyuv2_16_16_8_table_4": ((16, 16, 8), NYU, 13_900_268, 53.03),
    "cityscapes_16_16_4_table_2": ((16, 16, 4), CITYSCAPES, 9_814_664, 37.44),
    "pascal_16_16_4_table_3": ((16, 16, 4), PASCAL, 17_937_680, 68.43),
    "pascal_32_32_4": ((32, 32, 4), PASCAL, 19_584_272, 74.71),
}
UNREACHED = 552_036  # of a mask decoder: its IoU head and three hypernetworks, when only mask 0 is read


@pytest.mark.parametrize(("ranks", "tasks", "trainable", "mib"), COUNTS.values(), ids=COUNTS)
def test_counts_are_the_papers(
    ranks: tuple[int, int, int], tasks: tuple[Task, ...], trainable: int, mib: float
) -> None:
    with torch.device("meta"):
        model = MultiTaskModel(sam.SamLarge().build((256, 256)), ToRA(ranks=ranks), decoder.SamMask(), tasks)
    found = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert found == trainable
    assert round(found * 4 / 2**20, 2) == mib
    if tasks is CITYSCAPES:
        assert count_parameters(model, (256, 256)).live == trainable - UNREACHED * len(tasks)
