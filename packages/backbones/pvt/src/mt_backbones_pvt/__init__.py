"""Pyramid Vision Transformer, v1 (Wang et al., ICCV 2021) and v2 (CVMJ 2022), as streamed backbones."""

from __future__ import annotations

from collections.abc import Mapping

from mt_core.hookspecs import hookimpl


@hookimpl
def mt_backbones() -> Mapping[str, type | str]:
    first = {"pvt_nano": "PvtNano", "pvt_tiny": "PvtTiny", "pvt_small": "PvtSmall", "pvt_medium": "PvtMedium"}
    first |= {"pvt_large": "PvtLarge"}
    second = {f"pvt_v2_b{i}": f"PvtV2B{i}" for i in range(6)}
    return {
        **{name: f"mt_backbones_pvt.pvt:{cls}" for name, cls in first.items()},
        **{name: f"mt_backbones_pvt.pvt_v2:{cls}" for name, cls in second.items()},
    }
