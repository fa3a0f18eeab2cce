"""Segment Anything (Kirillov et al., ICCV 2023) as a streamed backbone, and its mask decoder as a head (mSAM)."""

from __future__ import annotations

from collections.abc import Mapping

from mt_core.hookspecs import hookimpl


@hookimpl
def mt_backbones() -> Mapping[str, type | str]:
    names = {"sam_vit_b": "SamBase", "sam_vit_l": "SamLarge", "sam_vit_h": "SamHuge", "sam_vit_nano": "SamNano"}
    return {name: f"mt_backbones_sam.sam:{cls}" for name, cls in names.items()}


@hookimpl
def mt_decoders() -> Mapping[str, type | str]:
    return {"sam_mask": "mt_backbones_sam.sam_mask:SamMask"}
